"""The tables of a tracked step."""

from __future__ import annotations

import io

from rich.console import Console
from support.result_examples import tracked_memory

from wtacrs.integration.tables.track_memory import track_memory_tables


def test_owners_by_modules_operations_and_types_and_what_is_beside_them() -> None:
    tables = list(track_memory_tables(tracked_memory()))
    assert len(tables) == 4
    console = Console(width=100, file=io.StringIO())
    for table in tables:
        console.print(table)
    text = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "AddmmBackward0 │ Linear │ 2.00 │ 3.00 │ 100.0%" in text
    assert "ReluBackward0 │ ReLU │ 0.000 │ 3.00 │ 60.0%" in text
    assert "optimizer states │ 2.00" in text
