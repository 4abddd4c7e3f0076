"""Tables on narrow terminals: every column and every cell is there."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from wtacrs.integration.tables.folding import folded
from wtacrs.integration.tables.kinds import tables_of
from wtacrs.integration.tables.zoo import zoo_table
from wtacrs.validation.records.results import load_result

ROOT = Path(__file__).parents[3]
NO_RESULT = "numbers.json"
"""Of the README's tables."""
FILES = [
    path
    for path in sorted([*ROOT.glob("figures/gallery/*.json"), *ROOT.glob("integration/experiments/*.json")])
    if path.name != NO_RESULT
]
WIDTHS = (60, 80, 100, 140)
LONG = "masks"  # a table of hundreds of rows
CASES = [
    pytest.param(path, width, marks=pytest.mark.slow if path and path.stem == LONG and width != 80 else [])
    for path in (None, *FILES)
    for width in WIDTHS
]


@cache
def tables(path: Path | None) -> list[Table]:
    """Of a committed result; of the zoo without one."""
    return [zoo_table()] if path is None else list(tables_of(load_result(path)))


def shown(tables: list[Table], width: int) -> str:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(*tables, sep="\n")
    return capture.get()


def characters(text: str) -> Counter[str]:
    return Counter(character for character in text if character.isalnum())


@pytest.mark.parametrize(("path", "width"), CASES, ids=lambda value: getattr(value, "stem", str(value)))
def test_no_column_and_no_character_is_lost(path: Path | None, width: int) -> None:
    for table in tables(path):
        assert_whole(table, width)


def assert_whole(table: Table, width: int) -> None:
    text = shown(folded(table, width), width)
    assert max(map(len, text.splitlines())) <= width
    wide = shown([table], 10_000)
    assert not characters(wide) - characters(text)
    assert text.count("…") >= wide.count("…") or "…" not in text
    numbers = [
        cell
        for column in table.columns
        if column.justify == "right"
        for cell in column.cells
        if isinstance(cell, str)
    ]
    tokens = " ".join(text.split())
    assert all(" ".join(number.split()) in tokens for number in numbers if "[" not in number)


def test_a_table_that_fits_is_left_alone() -> None:
    table = Table("a", "b")
    table.add_row("1", "2")
    assert folded(table, 80) == [table]


def test_what_does_not_fit_goes_below_beside_the_first_column() -> None:
    table = Table(title="t")
    table.add_column("name")
    for place in range(12):
        table.add_column(f"column{place}", justify="right")
    table.add_row("crs", *(f"{place}.12345" for place in range(12)))
    pieces = folded(table, 60)
    assert len(pieces) > 1
    assert all(piece.columns[0].header == "name" for piece in pieces)
    assert [piece.title for piece in pieces] == ["t", *[None] * (len(pieces) - 1)]
    headers = [column.header for piece in pieces for column in piece.columns[1:]]
    assert headers == [f"column{place}" for place in range(12)]
