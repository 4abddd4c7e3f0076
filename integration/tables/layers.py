"""Coverage of a model as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from wtacrs.integration.measure.coverage import Coverage, estimated_share

_COLOURS = {"estimated": "green", "exact": "yellow", "none": "dim"}


def coverage_table(title: str, found: Sequence[Coverage]) -> Table:
    """A row for every kind of module that has parameters."""
    table = Table(
        title=f"{title}: {estimated_share(found):.1%} of the trained numbers in layers whose dW is estimated",
        title_justify="left",
    )
    for column in ("modules", "", "class", "weight", "dW", "why, or what else"):
        table.add_column(column, justify="right" if column == "" else "left", overflow="fold")
    for entry in found:
        table.add_row(
            entry.pattern or "(the model itself)",
            f"{entry.modules}×",
            entry.kind,
            "×".join(map(str, entry.shape)) or "–",
            f"[{_COLOURS[entry.gradient]}]{entry.gradient}[/]",
            entry.reason,
        )
    return table
