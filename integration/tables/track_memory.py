"""A tracked step as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from wtacrs.integration.measure.owners_table import owners_table
from wtacrs.validation.records.track_memory import TrackedMemoryResult, beside
from wtacrs.validation.records.units import megabytes


def track_memory_tables(result: TrackedMemoryResult) -> Iterator[Table]:
    """The owners by modules, operations and types, and what is alive beside what they hold."""
    for by in ("pattern", "operation", "type"):
        yield owners_table(result, by=by)
    table = Table(title="Beside it, MB", title_justify="left")
    table.add_column("what")
    table.add_column("MB", justify="right")
    for name, size in beside(result):
        table.add_row(name, megabytes(size))
    yield table
