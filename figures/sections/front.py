"""Ways to take a training step, in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import front, saving
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Code, Named, Paragraph, Section, Table
from wtacrs.validation.records.front import FrontResult, FrontRow, front_sentences
from wtacrs.validation.records.units import megabytes


def section(results: Sequence[Named[FrontResult]]) -> Section:
    """What no other way beats, the front, the decomposition of the saving, and all numbers."""
    section = Section("Memory, time and noise of a step")
    for _, result in section.each(results):
        section.add(*(Paragraph(f"{sentence}.") for sentence in front_sentences(result)))
        section.draw(
            partial(front.build, result),
            "The front of memory, time and noise",
            "Each point is a way to take a step: what is kept for the backward pass against the time, both of the first "
            "way; the colour is the noise added to the gradient, of the minibatch's. Ringed: not beaten in all three.",
            finding=partial(findings.of_front, result),
        )
        if result.parts:
            section.draw(
                partial(saving.build, result),
                "What saves how much",
                "Bytes kept as one part after another is made lean, and in the end sampled and computed again. What a "
                "part saves depends on its place: a tensor that two parts keep is freed with the second.",
                finding=partial(findings.of_saving, result),
            )
        head = [
            "way",
            "MB kept",
            "of the first",
            "peak of the first's",
            "seconds",
            "time of the first's",
            "added noise",
        ]
        section.add(Table(head, [_row(row, result.rows[0]) for row in result.rows], numeric=range(1, len(head))))
    return section


def _row(row: FrontRow, first: FrontRow) -> list[Cell]:
    peak = None if row.peak is None or first.peak is None else row.peak / first.peak
    return [
        Code(row.way.name),
        megabytes(row.kept),
        row.kept / first.kept,
        peak,
        row.seconds,
        row.ratio,
        row.noise,
    ]
