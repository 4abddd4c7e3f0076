"""What `lean_` does with a model as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from wtacrs.integration.measure.lean_coverage import LeanCoverage


def lean_table(title: str, found: Sequence[LeanCoverage]) -> Table:
    """A row for every kind of module that was asked."""
    lean = sum(entry.modules for entry in found if entry.lean)
    table = Table(
        title=f"{title}: {lean} of {sum(entry.modules for entry in found)} parts keep less", title_justify="left"
    )
    for column in ("modules", "", "class", "keeps", "what it is, or why it stays stock"):
        table.add_column(column, justify="right" if column == "" else "left", overflow="fold")
    for entry in found:
        keeps = "[green]less[/]" if entry.lean else "[yellow]stock[/]"
        table.add_row(entry.pattern or "(the model itself)", f"{entry.modules}×", entry.kind, keeps, entry.what)
    return table
