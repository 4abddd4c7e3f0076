"""Kinds of scores in training, in the report."""

from __future__ import annotations

from collections.abc import Sequence

from wtacrs.figures.sections.blocks import Cell, Named, Paragraph, Section, Table
from wtacrs.validation.records.scores import TrainingScoresResult
from wtacrs.validation.records.units import model_name


def section(results: Sequence[Named[TrainingScoresResult]]) -> Section:
    """What the best kind that training can know is worth, in a sentence, and all kinds as a table."""
    section = Section("Scores in training")
    for _, result in section.each(results):
        section.add(Paragraph(_sentence(result)), _rows(result), _bytes(result))
    return section


def _sentence(result: TrainingScoresResult) -> str:
    best = min((row for row in result.rows if row.scores != "oracle"), key=lambda row: row.variance)
    return (
        f"Of what training can know, {best.scores} has the least variance: {best.variance:.2f} times that of row norms "
        f"at budget {best.budget:g}, the median over {best.layers} layers of {model_name(result.model)} on "
        f"{result.task}, {result.steps} steps after it began to learn."
    )


def _rows(result: TrainingScoresResult) -> Table:
    rows: list[list[Cell]] = [
        [
            row.scores,
            f"{row.budget:g}",
            str(row.layers),
            f"{row.variance:.3f}",
            f"{row.low:.3f}",
            f"{row.high:.3f}",
        ]
        for row in result.rows
    ]
    head = ["scores", "budget", "layers", "variance over row norms'", "first quartile", "third quartile"]
    return Table(head, rows, numeric=range(1, 6))


def _bytes(result: TrainingScoresResult) -> Table:
    rows: list[list[Cell]] = [[entry.scores, f"{entry.memory:,}", f"{entry.rows:,}"] for entry in result.bytes]
    return Table(["scores", "bytes of the memory", "bytes of rows, a batch"], rows, numeric=(1, 2))
