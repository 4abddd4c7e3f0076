"""Bytes of a training step as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from wtacrs.integration.measure.owners_table import owners_rows
from wtacrs.validation.records.memory import MemoryResult, megabytes


def memory_table(result: MemoryResult) -> Table:
    """Types of layers by way of training; below the totals, their share of the exact one, and the peak."""
    table = Table(
        title=f"Megabytes kept for the backward pass: {short_name(result.model)}, {result.task}, {result.batch_size} × "
        f"{result.tokens} tokens, {result.precision}; parameters: {megabytes(result.parameters)}",
        title_justify="left",
    )
    table.add_column("kept by", overflow="fold")
    for step in result.steps:
        table.add_column(step.name, justify="right", overflow="fold")
    exact = result.steps[0]
    kept = [{entry.name: entry.bytes for entry in step.saved} for step in result.steps]
    names = list(dict.fromkeys(name for found in kept for name in found))
    for name in names:
        end = name == names[-1]
        table.add_row(name, *(megabytes(found[name]) if name in found else "–" for found in kept), end_section=end)
    table.add_row("all", *(megabytes(step.total) for step in result.steps))
    table.add_row("of exact", *(f"{step.total / exact.total:.1%}" for step in result.steps), end_section=True)
    table.add_row("peak, with gradients", *(megabytes(step.peak) for step in result.steps))
    table.add_row("of exact", *(f"{step.peak / exact.peak:.1%}" for step in result.steps))
    return table


def owners_tables(result: MemoryResult) -> Iterator[Table]:
    """Who holds what in those steps that tell it, by the pattern of the modules' names."""
    for step in result.steps:
        if step.owners:
            yield owners_rows(f"Megabytes by owner: {step.name}", step.owners, step.total, step.shared)


def short_name(model: str) -> str:
    """A folder by its last two parts, a name of the hub as it is.

    >>> short_name("/home/of/someone/models/t5"), short_name("google/t5-v1_1-small")
    ('models/t5', 'google/t5-v1_1-small')
    """
    return "/".join(model.split("/")[-2:]) if model.startswith(("/", "~", ".")) else model
