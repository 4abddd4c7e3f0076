"""Tab-separated files with a header: UTF-8, no quoting, a row per line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.tasks.hub import one_line

Columns = Sequence[Sequence[str]]
"""The accepted names of every needed column."""


@dataclass(frozen=True)
class Row:
    """One row of a file or of a data set of the hub; `where` names its place in messages."""

    where: str
    fields: Mapping[str, object]

    def text(self, names: Sequence[str]) -> str:
        """The field of the first of these columns that there is, without outer spaces."""
        return str(next(self.fields[name] for name in names if name in self.fields)).strip()


def read_tsv(path: Path, columns: Columns) -> list[Row]:
    """The rows of a file.

    Raises:
        InputError: naming file and line, if the file cannot be read, has no rows, lacks a column or has a row of
            another length than its header.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # read_text would turn carriage returns into line ends
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({one_line(error)})") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    # not by csv either: a carriage return inside a field would end the row there, and shift line numbers
    lines = ((number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1))
    rows = [(number, line.split("\t")) for number, line in lines if line]
    if len(rows) < 2:
        raise InputError(
            f"{path}: no examples; a header ({_first_names(columns)}) and at least one row are needed"
        )
    header = rows[0][1]
    require_columns(header, columns, f"{path}, line {rows[0][0]}")
    for number, fields in rows[1:]:
        if len(fields) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(fields)} fields, the header has {len(header)} ({', '.join(header)})"
            )
    return [Row(f"{path}, line {number}", dict(zip(header, row, strict=True))) for number, row in rows[1:]]


def require_columns(header: Sequence[str], columns: Columns, where: str) -> None:
    """Refuse a header that lacks a column.

    Raises:
        InputError: naming the place, the needed columns and those found.
    """
    if any(set(names).isdisjoint(header) for names in columns):
        raise InputError(
            f"{where}: needed are the tab-separated columns {_first_names(columns)}; found: {', '.join(header)}"
        )


def _first_names(columns: Columns) -> str:
    return ", ".join(names[0] for names in columns)
