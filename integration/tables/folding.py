"""Tables on narrow terminals: cells are wrapped, and columns that do not fit go below, beside the first ones again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import lru_cache

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table

_WORD = 24
"""Cells of text: longer words are broken."""
_BROKEN_WORD = 10
_ROOMY = 100_000
_CONSOLE = Console(width=_ROOMY)


def folded(table: Table, width: int) -> list[Table]:
    """The table in pieces that are at most `width` columns of characters wide, with every column and cell of it.

    Numbers stay whole. The columns on the left that are texts stand in every piece.
    """
    if _width(table, table.columns) <= width:
        return [table]
    for word in (_WORD, _BROKEN_WORD, 1):
        keys = _keys(table)
        while len(keys) > 1 and _width(table, _narrow(keys, word)) > width // 2:
            keys = keys[:-1]
        groups = list(_groups(table, keys, word, width))
        if all(_width(table, _narrow(group, word)) <= width for group in groups):
            break
    pieces = [_piece(table, _widened(table, group, word, width)) for group in groups]
    for piece in pieces[1:]:
        piece.title = None
    for piece in pieces[:-1]:
        piece.caption = None
    return pieces


def _keys(table: Table) -> list[Column]:
    """The columns of text on the left; at least the first one."""
    found: list[Column] = []
    for column in table.columns:
        if found and column.justify == "right":
            break
        found.append(column)
    return found if len(found) < len(table.columns) else found[:1]


def _groups(table: Table, keys: Sequence[Column], word: int, width: int) -> Iterator[list[Column]]:
    group = list(keys)
    for column in table.columns[len(keys) :]:
        if len(group) > len(keys) and _width(table, _narrow([*group, column], word)) > width:
            yield group
            group = list(keys)
        group.append(column)
    yield group


def _narrow(columns: Sequence[Column], word: int) -> list[Column]:
    return [replace(column, width=min(_least(column, word), _most(column))) for column in columns]


def _widened(table: Table, columns: Sequence[Column], word: int, width: int) -> list[Column]:
    """Columns of a piece, each as wide as it needs where there is room."""
    found = _narrow(columns, word)
    room = width - _width(table, found)
    while room > 0:
        wanting = [column for column in found if (column.width or 0) < _most(column)]
        if not wanting:
            break
        for column in wanting[:room]:
            column.width = (column.width or 0) + 1
        room -= len(wanting[:room])
    return found


def _least(column: Column, word: int) -> int:
    """Numbers need their width, texts that of their longest word, up to `word`."""
    cells = [_measured(cell) for cell in column.cells]
    title = min(_measured(column.header).minimum, word)
    if column.justify == "right":
        return max([title, *(cell.maximum for cell in cells)] if word > 1 else [title, 1])
    return max([title, *(min(cell.minimum, word) for cell in cells), 1])


def _measured(cell: RenderableType) -> Measurement:
    return _measured_text(cell) if isinstance(cell, str) else _CONSOLE.measure(cell)


@lru_cache(maxsize=65_536)  # every width that is tried asks for every cell again
def _measured_text(cell: str) -> Measurement:
    return _CONSOLE.measure(cell)


def _most(column: Column) -> int:
    return max([1, *(_measured(cell).maximum for cell in (column.header, *column.cells))])


def _width(table: Table, columns: Sequence[Column]) -> int:
    piece = _piece(table, columns)
    piece.title = piece.caption = None
    return Measurement.get(_CONSOLE, _CONSOLE.options, piece).maximum


def _piece(table: Table, columns: Sequence[Column]) -> Table:
    piece = copy(table)
    piece.rows = list(table.rows)
    piece.columns = [
        replace(column, _index=place, no_wrap=False, overflow="fold") for place, column in enumerate(columns)
    ]
    return piece
