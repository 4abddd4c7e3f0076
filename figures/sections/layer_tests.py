"""Tests on captured layers in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import layer_tests as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Code, Details, Flag, Named, Paragraph, Section, Table, number
from wtacrs.validation.records.layer_tests import LayerTest, LayerTestResult, RatioFinding
from wtacrs.validation.summaries.layer_tests import layer_test_summary, ruled_out

_HEAD = (
    "layer", "estimator", "scores", "draws", "mean", "bias / ‖G‖", "what was found", "anywhere", "Holm",
    "variance / closed form", "Holm", "closed form", "over the baseline",
)  # fmt: skip
_NUMERIC = (3, 5, 7, 8, 9, 10)


def section(results: Sequence[Named[LayerTestResult]]) -> Section:
    """What is broken or undecided in sentences, the figure, every test folded away."""
    section = Section("Tests on captured layers")
    for _, result in section.each(results):
        section.add(*(Paragraph(f"{line[0].upper()}{line[1:]}.") for line in layer_test_summary(result)))
        section.draw(
            partial(figure.build, result),
            "Bias on captured layers",
            "Estimated bias of every estimator on every layer, along the exact product and in any direction, with "
            "intervals. A filled mark is a bias, an open one holds, a half-filled one with dashes is undecided. A bar is "
            "the smallest bias that would have been seen with the power asked for, a dotted line the bias to rule out.",
            finding=partial(findings.of_layer_tests, result),
        )
        open_or_broken = [test for test in result.tests if test in result.broken or test in result.undecided]
        if open_or_broken:
            section.add(Table(_HEAD, [_row(test) for test in open_or_broken], numeric=_NUMERIC))
        rows = [_row(test) for test in result.tests]
        section.add(
            Details(f"All {len(rows)} tests", [Table(_HEAD, rows, numeric=_NUMERIC)]),
            Paragraph(
                "A bias is relative to the norm of the layer's exact product G. A mean holds where a bias of the size "
                "asked for, along G, would have been seen; “anywhere” is the size from which one in any direction would "
                "have been. Holm: p over all looks, layers and estimators.",
                soft=True,
            ),
        )
    return section


def _row(test: LayerTest) -> list[Cell]:
    bias, variance = test.bias, test.variance
    anywhere = "exact" if bias.detectable is None else number(bias.detectable)
    cells: list[Cell] = [
        test.layer, Code(test.estimator), test.scores, f"{test.draws:,}" if test.draws else "–", _verdict(bias.verdict),
        number(bias.bias), ruled_out(test), anywhere, _p(bias.adjusted),
    ]  # fmt: skip
    if variance is None:
        cells += ["–", "–", "none"]
    else:
        relative = variance.measured / variance.stated if variance.stated > 0 else variance.measured
        cells += [number(relative), _p(variance.adjusted), _verdict(variance.verdict)]
    return [*cells, _ratio(test.ratio)]


def _verdict(verdict: str) -> Cell:
    if verdict in ("undecided", "biased, as declared"):
        return verdict
    return Flag(verdict, good=verdict in ("holds", "accepted"))


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "<1e-9" if value < 1e-9 else f"{value:.2g}"


def _ratio(found: RatioFinding | None) -> str:
    if found is None:
        return "–"
    if found.method == "closed form":
        return f"{found.quantity} {found.ratio:.3f}× of {found.against}, exactly"
    return f"{found.quantity} {found.ratio:.3f}× ({found.low:.3f} to {found.high:.3f}) of {found.against}"
