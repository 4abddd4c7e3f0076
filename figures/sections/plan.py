"""Plans in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import plan as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Code, Named, Paragraph, Section, Table, number
from wtacrs.validation.records.plan import Plan, plan_sentences
from wtacrs.validation.records.units import megabytes


def section(results: Sequence[Named[Plan]]) -> Section:
    """What every block does, what that costs, and the front."""
    section = Section("Plans")
    for _, result in section.each(results):
        for sentence in plan_sentences(result):
            section.add(Paragraph(f"{sentence[0].upper()}{sentence[1:]}."))
        if result.front:
            section.draw(
                partial(figure.build, result),
                "Time and noise of the best plans against the peak",
                "Every point is the best plan for an amount of memory; the dashed line is what was asked for.",
                finding=partial(findings.of_plan, result),
            )
        section.add(_blocks(result))
    return section


def _blocks(result: Plan) -> Table:
    rows: list[list[Cell]] = [
        [Code(b.name), str(b.choice), megabytes(b.kept), number(b.seconds), number(b.noise)] for b in result.blocks
    ]
    return Table(["block", "choice", "MB kept", "seconds", "noise"], rows, numeric=range(2, 5))
