"""Simulated steps as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from wtacrs.integration.measure.owners_table import owners_rows
from wtacrs.integration.tables.memory import short_name
from wtacrs.validation.records.simulation import PARTS, SimulatedStep, SimulationResult
from wtacrs.validation.records.units import gigabytes


def simulation_tables(result: SimulationResult) -> Iterator[Table]:
    """What is alive at the peak by way of training; the largest batches; who keeps what in the last way that tells."""
    table = Table(
        title=f"Gigabytes alive at the peak of a training step: {short_name(result.model)}, simulated",
        title_justify="left",
    )
    table.add_column("what", overflow="fold")
    for step in result.steps:
        table.add_column(step.choice.name, justify="right", overflow="fold")
    table.add_row("batch, of lengths", *(_sizes(step) for step in result.steps), end_section=True)
    for part in PARTS:
        table.add_row(part, *(gigabytes(step.parts[part]) for step in result.steps), end_section=part == PARTS[-1])
    table.add_row("peak", *(gigabytes(step.peak) for step in result.steps))
    table.add_row("reached in", *(step.phase for step in result.steps))
    table.add_row("of the first", *(f"{step.peak / result.steps[0].peak:.1%}" for step in result.steps))
    table.add_row("most on the host", *(gigabytes(step.host) if step.host else "–" for step in result.steps))
    yield table
    if result.largest:
        yield _largest(result)
    told = [step for step in result.steps if step.owners]
    if told:
        last = told[-1]
        yield owners_rows(f"Megabytes kept by owner: {last.choice.name}", last.owners, last.kept, last.shared)


def _sizes(step: SimulatedStep) -> str:
    sizes = (step.batch_size, step.length, step.target_length)
    return " × ".join(str(n) for n in sizes if n is not None)


def _largest(result: SimulationResult) -> Table:
    table = Table(title=f"Largest batch that fits {gigabytes(result.largest[0].budget)} GB", title_justify="left")
    for name in ("way", "batch", "GB before the first example", "GB for each"):
        table.add_column(name, justify="left" if name == "way" else "right", overflow="fold")
    for step, found in zip(result.steps, result.largest, strict=True):
        table.add_row(step.choice.name, str(found.batch_size), gigabytes(found.fixed), gigabytes(found.each))
    return table
