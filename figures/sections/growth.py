"""Models of many sizes in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import growth as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Named, Section, Table, number
from wtacrs.validation.records.growth import GrowthResult


def section(results: Sequence[Named[GrowthResult]]) -> Section:
    """Variance against width, and the trends that were tested."""
    section = Section("Are larger models more compressible?")
    for _, result in section.each(results):
        section.draw(
            partial(figure.build, result),
            "Variance of models of many sizes, and by which factor it changes",
            "New models, the same text and steps for all. Lines are means over seeds. Factors are per doubling, or per "
            "nat that the loss falls; equal loss: interpolated between the times at which a model was measured.",
            finding=partial(findings.of_growth, result),
        )
        if result.trends:
            section.add(_trends(result))
    return section


def _trends(result: GrowthResult) -> Table:
    rows: list[list[Cell]] = [
        [
            figure.NAMES[one.family],
            f"{one.axis}, {one.condition}",
            figure.QUANTITIES.get(one.quantity, one.quantity),
            f"{number(one.factor)} [{number(one.low)}, {number(one.high)}]",
            number(one.p_value),
            one.verdict,
        ]
        for one in result.trends
    ]
    head = ["model", "what grows", "quantity", "factor per doubling or nat", "p (Holm)", "verdict"]
    return Table(head, rows, numeric=[3, 4], caption="Trends: least squares on logarithms, a seed is a block")
