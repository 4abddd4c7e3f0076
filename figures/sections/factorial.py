"""Factorial experiments in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import factorial as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Named, Paragraph, Section, Table, number
from wtacrs.validation.records.factorial import FactorialResult


def section(results: Sequence[Named[FactorialResult]]) -> Section:
    """What interacts in a sentence, the figure, every contrast and every cell as tables."""
    section = Section("Crossed factors")
    for _, result in section.each(results):
        section.add(Paragraph(f"{result.config['name']}: {findings.of_factorial(result)}."))
        section.draw(
            partial(figure.build, result),
            f"Cells and effects of {result.config['name']}",
            f"Left: dev {result.metric} of every combination. Right: effects of the first factor at every level of the "
            "others, and how they differ between levels (interactions).",
            finding=partial(findings.of_factorial, result),
        )
        section.add(_contrasts(result), _cells(result))
    return section


def _contrasts(result: FactorialResult) -> Table:
    interval = f"{1 - 2 * float(result.config['level']):.0%} interval"
    head = ["contrast", "of", "factor", "level", "difference", interval, "p differs", "p within", "verdict"]
    rows: list[list[Cell]] = [
        [
            one.kind,
            one.treatment,
            one.factor or "all",
            one.at or "–",
            f"{one.difference:+.4f}",
            f"{one.low:+.4f} … {one.high:+.4f}",
            number(one.different),
            number(one.within),
            one.verdict,
        ]
        for one in result.contrasts
    ]
    return Table(head, rows, numeric=[4, 5, 6, 7], caption="Effects and interactions")


def _cells(result: FactorialResult) -> Table:
    head = [*result.factors, result.metric, "± SE"]
    rows: list[list[Cell]] = [
        [*cell.levels.values(), f"{cell.mean:.4f}", "–" if cell.error is None else f"{cell.error:.4f}"]
        for cell in result.cells
    ]
    return Table(head, rows, numeric=[len(head) - 2, len(head) - 1], caption="Every combination")
