"""Tests on captured layers as a table for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from wtacrs.figures.style import short_names
from wtacrs.validation.records.layer_tests import (
    BiasFinding,
    LayerTest,
    LayerTestResult,
    RatioFinding,
    VarianceFinding,
)

_STYLES = {"accepted": "green", "rejected": "bold red", "biased, as declared": "yellow"}


def layer_test_tables(result: LayerTestResult) -> list[Table]:
    """One table per estimator and kind of scores, one row per layer.

    The bias, relative to ‖G‖: estimated; from which size on it would have been seen in any direction, with 99 % power; p,
    and p by Holm. The variance: measured over closed form, p by Holm. Last, over the baseline's, with its interval.
    """
    grouped: dict[tuple[str, str], list[LayerTest]] = {}
    for test in result.tests:
        grouped.setdefault((test.estimator, test.scores), []).append(test)
    names = short_names((test.layer for test in result.tests), limit=34)
    return [
        _table(f"{estimator}, scores: {scores}", tests, names) for (estimator, scores), tests in grouped.items()
    ]


def _table(title: str, tests: list[LayerTest], names: dict[str, str]) -> Table:
    compared = [test.ratio for test in tests if test.ratio is not None]
    stated = any(test.variance is not None for test in tests)
    if compared:
        title += f"; {compared[0].quantity} over {compared[0].against}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    columns = ["layer", "bias/‖G‖", "seen from", "p", "Holm", "mean"]
    columns += ["var/form", "Holm", "closed form"] if stated else []
    columns += ["over baseline"] if compared else []
    for column in columns:
        number = column in ("bias/‖G‖", "seen from", "p", "Holm", "var/form")
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for test in tests:
        cells = [names[test.layer], *_bias(test.bias)]
        cells += _variance(test.variance) if stated else ()
        cells += [_ratio(test.ratio)] if compared else []
        table.add_row(*cells)
    return table


def _bias(found: BiasFinding) -> tuple[str, ...]:
    seen = "exact" if found.detectable is None else f"{found.detectable:.3f}"
    return (f"{found.bias:.2g}", seen, _p(found.p_value), _p(found.adjusted), _styled(found.verdict))


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
