"""Tracked steps in the report: who holds what for the backward pass."""

from __future__ import annotations

from collections.abc import Sequence

from wtacrs.figures.sections.blocks import Named, Paragraph, Section, Table, percent
from wtacrs.validation.records.owners import OwnerBytes, shared_bytes
from wtacrs.validation.records.track_memory import TrackedMemoryResult, tracked_memory_sentences
from wtacrs.validation.records.units import megabytes, model_name

_ROWS = 25


def section(results: Sequence[Named[TrackedMemoryResult]]) -> Section:
    """What is kept and what is beside it in sentences, and the owners by modules."""
    section = Section("Who holds what in a training step")
    for _, result in section.each(results):
        section.add(Paragraph(f"A step of {model_name(result.model)}."))
        section.add(*(Paragraph(f"{sentence}.") for sentence in tracked_memory_sentences(result)))
        section.add(owners_block(result.by("pattern"), result.total, shared_bytes(result.kept, "pattern")))
    return section


def owners_block(owners: Sequence[OwnerBytes], total: int, shared: int) -> Table:
    """The largest owners; below what is held by one, what by several, once, and their sum."""
    head = ["modules", "type", "operations", "MB alone", "MB shared", "of all"]
    rows = [
        [
            entry.name, ", ".join(entry.types), ", ".join(entry.operations), megabytes(entry.alone),
            megabytes(entry.shared), percent(entry.held / total) if total else "–",
        ]
        for entry in owners[:_ROWS]
    ]  # fmt: skip
    others = owners[_ROWS:]
    if others:
        rows.append([f"{len(others)} others", "", "", megabytes(sum(entry.alone for entry in others)), "", ""])
    rows += [
        ["held by one", "", "", megabytes(total - shared), "", ""],
        ["held by several, once", "", "", "", megabytes(shared), ""],
        ["all", "", "", megabytes(total), "", ""],
    ]
    return Table(head, rows, numeric=range(3, len(head)))
