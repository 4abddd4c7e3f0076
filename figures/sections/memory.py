"""What one training step keeps for its backward pass, in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import memory as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Named, Paragraph, Section, Table, percent
from wtacrs.figures.sections.track_memory import owners_block
from wtacrs.validation.records.memory import MemoryResult, megabytes, memory_sentences
from wtacrs.validation.records.units import model_name


def section(results: Sequence[Named[MemoryResult]]) -> Section:
    """What each way to train saves in sentences, the figure, and megabytes by type of layer."""
    section = Section("Memory of a training step")
    for _, result in section.each(results):
        section.add(
            Paragraph(
                f"One step of {model_name(result.model)} on {result.task}: {result.batch_size} × {result.tokens} tokens "
                f"in {result.precision}, {megabytes(result.parameters)} MB of parameters."
            ),
            *(Paragraph(f"{sentence}.") for sentence in memory_sentences(result)),
        )
        section.draw(
            partial(figure.build, result),
            "Bytes kept for the backward pass",
            "What is alive at the end of the forward pass for the sake of the backward pass, by type of layer; a tick "
            "is the most that is alive at any moment of the step, gradients included.",
            finding=partial(findings.of_memory, result),
        )
        section.add(_bytes(result))
        for step in result.steps:
            if step.owners:
                section.add(Paragraph(f"Who holds what, {step.name}:"))
                section.add(owners_block(step.owners, step.total, step.shared))
    return section


def _bytes(result: MemoryResult) -> Table:
    exact = result.steps[0]
    kept = [{entry.name: entry.bytes for entry in step.saved} for step in result.steps]
    names = list(dict.fromkeys(name for found in kept for name in found))
    rows: list[list[Cell]] = [
        [name, *(megabytes(found[name]) if name in found else "–" for found in kept)] for name in names
    ]
    rows += [
        ["all", *(megabytes(step.total) for step in result.steps)],
        ["all, of exact", *(percent(step.total / exact.total) for step in result.steps)],
        ["peak, with gradients", *(megabytes(step.peak) for step in result.steps)],
        ["peak, of exact", *(percent(step.peak / exact.peak) for step in result.steps)],
    ]
    head = ["MB kept by", *(step.name for step in result.steps)]
    return Table(head, rows, numeric=range(1, len(head)))
