"""Tests on captured layers in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import layer_tests as figure
from wtacrs.figures.sections.blocks import Cell, Code, Details, Flag, Named, Paragraph, Section, Table, number
from wtacrs.validation.records.layer_tests import LayerTest, LayerTestResult, RatioFinding
from wtacrs.validation.summaries.layer_tests import layer_test_summary

_HEAD = (
    "layer", "estimator", "scores", "draws", "bias / ‖G‖", "seen from", "p", "Holm", "mean",
    "variance / closed form", "Holm", "closed form", "over the baseline",
)  # fmt: skip


def section(results: Sequence[Named[LayerTestResult]]) -> Section:
    """What was rejected in sentences, the figure, every test folded away."""
    section = Section("Tests on captured layers")
    for _, result in section.each(results):
        section.add(*(Paragraph(f"{line[0].upper()}{line[1:]}.") for line in layer_test_summary(result)))
        section.draw(
            partial(figure.build, result),
            "Bias on captured layers",
            "Estimated bias of every estimator on every layer, along the exact product and in any direction, with "
            "intervals. A filled mark is a bias. A bar is the smallest bias that would have been seen with 99 % power.",
        )
        broken = [test for test in result.tests if test in result.broken]
        if broken:
            section.add(Table(_HEAD, [_row(test) for test in broken], numeric=(3, 4, 5, 6, 7, 9, 10)))
        rows = [_row(test) for test in result.tests]
        section.add(
            Details(f"All {len(rows)} tests", [Table(_HEAD, rows, numeric=(3, 4, 5, 6, 7, 9, 10))]),
            Paragraph(
                "A bias is relative to the norm of the layer's exact product; “seen from” is the size from which it "
                "would have been seen in any direction with 99 % power. Holm: p over all tests of the family.",
                soft=True,
            ),
        )
    return section


def _row(test: LayerTest) -> list[Cell]:
    bias, variance = test.bias, test.variance
    seen = "exact" if bias.detectable is None else number(bias.detectable)
    cells: list[Cell] = [
        test.layer, Code(test.estimator), test.scores, f"{test.draws:,}" if test.draws else "–", number(bias.bias),
        seen, _p(bias.p_value), _p(bias.adjusted), _verdict(bias.verdict),
    ]  # fmt: skip
    if variance is None:
        cells += ["–", "–", "none"]
    else:
        relative = variance.measured / variance.stated if variance.stated > 0 else variance.measured
        cells += [number(relative), _p(variance.adjusted), _verdict(variance.verdict)]
    return [*cells, _ratio(test.ratio)]


def _verdict(verdict: str) -> Cell:
    return verdict if verdict.startswith("biased") else Flag(verdict, good=verdict == "accepted")


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
