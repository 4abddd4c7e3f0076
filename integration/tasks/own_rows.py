"""Rows of somebody's own file: CSV, TSV, JSON lines, Parquet, or a folder that `datasets` saved.

Every row knows its place, a line of a text file or the number of a row, and nothing is dropped: what cannot be read is an
error that names the place.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.tasks.hub import one_line
from wtacrs.integration.tasks.tsv import Row

ACCEPTED = (
    ".csv, .tsv, .jsonl, .ndjson (each also with .gz), .parquet, or a folder that datasets' save_to_disk wrote"
)
"""The kinds of files, for messages."""

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class OwnRows:
    """The rows of a file in their order.

    `columns` are its columns in their order. `class_names` maps a column of classes (`ClassLabel` of `datasets`) to their
    names by index.
    """

    columns: tuple[str, ...]
    rows: Sequence[Row]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_rows(
    argument: str, path: Path, encoding: str | None = None, wanted: Sequence[str] | None = None
) -> OwnRows:
    """Read a file by the end of its name.

    Args:
        argument: what names the file, for messages.
        path: the file or folder (`ACCEPTED`).
        encoding: of a text file; None for UTF-8, or what a byte order mark says.
        wanted: columns that are needed; of Parquet and folders no others are read. None for all.

    Raises:
        InputError: naming file and place, if it cannot be read, has no rows, or a row does not fit.
    """
    check_path(argument, path, encoding)
    suffix = _suffix(path)
    if path.is_dir():
        found = _datasets_folder(argument, path, wanted)
    elif suffix == ".parquet":
        found = _parquet(path, wanted)
    else:
        text = _text(path, encoding)
        found = _json_lines(path, text) if suffix in _JSON_LINES else _csv(path, text, _DELIMITERS[suffix])
    if not found.rows:
        told = f"has a header ({', '.join(found.columns)}) and no rows" if found.columns else "is empty"
        raise InputError(f"{argument}={path} {told}; at least one row is needed")
    return found


def check_path(argument: str, path: Path, encoding: str | None = None) -> None:
    """Refuse what can be told from the name: a missing file, another kind, an unknown encoding.

    Raises:
        InputError: naming the argument and what is accepted.
    """
    if not path.exists():
        raise InputError(f"{argument}={path} does not exist; accepted: {ACCEPTED}")
    suffix = _suffix(path)
    text = suffix in (*_DELIMITERS, *_JSON_LINES)
    if not path.is_dir() and not text and path.suffix != ".parquet":
        hint = "; a list of objects is written as JSON lines, one object a line" if suffix == ".json" else ""
        raise InputError(f"{argument}={path}: accepted are {ACCEPTED}{hint}")
    if encoding is not None:
        if path.is_dir() or not text:
            raise InputError(f"encoding={encoding!r}: {path} is no text file, and has none to choose")
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise InputError(
                f"encoding={encoding!r} is unknown; accepted are Python's names, as in utf-8, cp1252 or utf-16"
            ) from None


def _suffix(path: Path) -> str:
    name = path.name.casefold()
    return Path(name.removesuffix(".gz")).suffix


def _text(path: Path, encoding: str | None) -> str:
    try:
        content = path.read_bytes()
        if path.name.casefold().endswith(".gz"):
            content = gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    used = encoding or next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(used).removeprefix("\ufeff")
    except UnicodeError as error:
        line = content[: getattr(error, "start", 0)].count(b"\n") + 1
        other = "" if encoding else "; --encoding names another, as in cp1252"
        raise InputError(f"{path}, line {line}: not {used} text ({one_line(error)}){other}") from None


def _csv(path: Path, text: str, delimiter: str) -> OwnRows:
    header: list[str] = []
    rows: list[Row] = []
    for line, fields in _records(path, text, delimiter):
        if not header:
            header = fields
            _check_header(header, f"{path}, line {line}")
        elif len(fields) != len(header):
            raise InputError(
                f"{path}, line {line}: {len(fields)} fields, the header has {len(header)} ({', '.join(header)})"
            )
        else:
            rows.append(Row(f"{path}, line {line}", dict(zip(header, fields, strict=True))))
    return OwnRows(tuple(header), rows)


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Every record with the line at which it begins; lines without a character are none, as for `csv.DictReader`."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    with _long_fields():
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader, None)
            except csv.Error as error:
                told = f'{error}; a field that begins with " ends with one, and holds "" for each inside'
                raise InputError(f"{path}, line {line}: {told}") from None
            if fields is None:
                return
            if fields:
                yield line, fields


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the csv module's limit of 128 KiB a field."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _check_header(header: Sequence[str], where: str) -> None:
    twice = [name for i, name in enumerate(header) if name in header[:i]]
    if twice:
        raise InputError(f"{where}: the column {twice[0]!r} occurs twice in the header")


def _json_lines(path: Path, text: str) -> OwnRows:
    columns: dict[str, None] = {}
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would end a line at U+2028 inside a text
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            found = json.loads(line, object_pairs_hook=_without_repeated)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: no JSON object ({one_line(error)})") from None
        if not isinstance(found, dict):
            raise InputError(f"{where}: a JSON object per line is needed, this is {_kind(found)}")
        columns |= dict.fromkeys(found)
        rows.append(Row(where, found))
    return OwnRows(tuple(columns), rows)


def _without_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _kind(value: object) -> str:
    return {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a number")


def _parquet(path: Path, wanted: Sequence[str] | None) -> OwnRows:
    import pyarrow
    from datasets import Features
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        columns = file.schema_arrow.names
        _check_header(columns, str(path))
        table = file.read(columns=_known(wanted, columns))
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet ({one_line(error)})") from None
    rows = [Row(f"{path}, row {i}", fields) for i, fields in enumerate(table.to_pylist(), 1)]
    try:
        names = _class_names(Features.from_arrow_schema(table.schema))
    except Exception:  # types that `datasets` does not know have no names of classes
        names = {}
    return OwnRows(tuple(columns), rows, names)


def _datasets_folder(argument: str, path: Path, wanted: Sequence[str] | None) -> OwnRows:
    from datasets import Dataset, DatasetDict, load_from_disk

    try:
        found = load_from_disk(str(path))
    except Exception as error:  # whatever the library makes of files that it did not write
        raise InputError(
            f"{argument}={path} is no folder that datasets' save_to_disk wrote ({one_line(error)})"
        ) from None
    if isinstance(found, DatasetDict):
        parts = ", ".join(str(path / name) for name in found)
        raise InputError(f"{argument}={path} holds several splits; name one: {parts}")
    assert isinstance(found, Dataset)
    chosen = found.with_format(None).select_columns(_known(wanted, found.column_names))
    rows = [Row(f"{path}, row {i}", fields) for i, fields in enumerate(chosen, 1)]
    return OwnRows(tuple(found.column_names), rows, _class_names(found.features))


def _known(wanted: Sequence[str] | None, columns: Sequence[str]) -> list[str]:
    """The wanted columns that there are; all if none is there, so that every row is seen."""
    return [name for name in columns if wanted is None or name in wanted] or list(columns)


def _class_names(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {
        column: tuple(feature.names)
        for column, feature in features.items()
        if type(feature).__name__ == "ClassLabel" and feature.names
    }
