"""Tests on captured layers as a table for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from wtacrs.validation.records.layer_tests import (
    BiasFinding,
    LayerTest,
    LayerTestResult,
    RatioFinding,
    VarianceFinding,
)
from wtacrs.validation.summaries.layer_tests import off_along, percent

_STYLES = {
    "holds": "green",
    "broken": "bold red",
    "undecided": "bold yellow",
    "biased, as declared": "yellow",
    "accepted": "green",
    "rejected": "bold red",
}


def layer_test_tables(result: LayerTestResult) -> list[Table]:
    """One table per estimator and kind of scores, one row per layer.

    The bias, relative to ‖G‖: estimated along G; from which size on it is ruled out, or would have been seen, along G and
    in any direction; draws; p by Holm. The variance: measured over closed form, p by Holm. Last, over the baseline's,
    with its interval.
    """
    grouped: dict[tuple[str, str], list[LayerTest]] = {}
    for test in result.tests:
        grouped.setdefault((test.estimator, test.scores), []).append(test)
    return [_table(f"{estimator}, scores: {scores}", tests) for (estimator, scores), tests in grouped.items()]


def _table(title: str, tests: list[LayerTest]) -> Table:
    compared = [test.ratio for test in tests if test.ratio is not None]
    stated = any(test.variance is not None for test in tests)
    if compared:
        title += f"; {compared[0].quantity} over {compared[0].against}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.caption, table.caption_justify = _caption(tests), "left"
    columns = ["layer", "mean", "along G", "ruled out", "anywhere", "draws", "Holm"]
    columns += ["var/form", "Holm", "closed form"] if stated else []
    columns += ["over baseline"] if compared else []
    for column in columns:
        text = column in ("layer", "mean", "closed form", "over baseline")
        table.add_column(column, justify="left" if text else "right", no_wrap=True)
    for test in tests:
        cells = [escape(test.layer), *_bias(test)]
        cells += _variance(test.variance) if stated else ()
        cells += [_ratio(test.ratio)] if compared else []
        table.add_row(*cells)
    return table


def _caption(tests: list[LayerTest]) -> str | None:
    power = next((test.bias.power for test in tests if test.bias.detectable_along is not None), None)
    if power is None:
        return None
    return (
        "along G: estimated bias, of ‖G‖; "
        f"> along G, and anywhere, biases above this share are ruled out with {100 * power:.4g} % power; "
        "~ would have been seen with it"
    )


def _bias(test: LayerTest) -> tuple[str, ...]:
    found = test.bias
    draws = f"{test.draws:,}" if test.draws else "–"
    reached = (_reach(found, value) for value in (found.detectable_along, found.detectable))
    return (_styled(found.verdict), off_along(found), *reached, draws, _p(found.adjusted))


def _reach(found: BiasFinding, value: float | None) -> str:
    """`> 1.2 %`: what is ruled out; `~` before what would have been seen, where the mean does not hold."""
    if value is None:
        return "exact" if found.method == "enumeration" else "–"
    return f"{'>' if found.verdict == 'holds' else '~'} {percent(value)}"


def _variance(found: VarianceFinding | None) -> tuple[str, ...]:
    if found is None:
        return ("–", "–", "none")
    relative = f"{found.measured / found.stated:.3f}" if found.stated > 0 else f"{found.measured:.2g}"
    return (relative, "exact" if found.adjusted is None else _p(found.adjusted), _styled(found.verdict))


def _ratio(found: RatioFinding | None) -> str:
    if found is None:
        return "–"
    if found.method == "closed form":
        return f"{found.ratio:.3f} exactly"
    return f"{found.ratio:.3f} ({found.low:.3f}–{found.high:.3f})"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "<1e-9" if value < 1e-9 else f"{value:.2g}"


def _styled(verdict: str) -> str:
    style = _STYLES[verdict]
    return f"[{style}]{verdict.partition(',')[0]}[/{style}]"
