"""Records as tidy tables: which tables a class of records has, and their rows.

The tables follow from the fields. A sequence of records is a table with one row each; a record within a record becomes
columns, `<field>_<column>`; a mapping to numbers becomes a column a key. A sequence of numbers, or a mapping to texts or
to sequences of numbers, is a table of its own. The rows of a table within a table begin with the columns of the row that
they belong to.

What the fields cannot say, a class says:
    table_series: by name of a table, the fields whose entries belong together, one row for each place; a mapping that is
        named alone has a row for each key.
    table_cells: sequences of numbers that are one value, such as a shape.
    table_derived: properties that are columns too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

Row = dict[str, Any]
DType = Literal["int", "float", "bool", "text", "mixed"]
SUMMARY = "summary"
"""The table of one row with what a result says once."""
_LEFT_OUT = {"kind", "stamp"}


@dataclass(frozen=True)
class Column:
    """One column: where its value is, seen from the record of the row; `spread` mappings give a column a key."""

    name: str
    path: tuple[str, ...]
    dtype: DType
    spread: bool = False


@dataclass(frozen=True)
class Table:
    """What the rows of one table are made of.

    Attributes:
        name: last part of its name.
        source: where its records, numbers or mapping are, seen from the record around it.
        columns: of its rows.
        tables: within its records.
        series: fields that are read place by place, where the rows are no records.
        keyed: the rows are the entries of one mapping; of one to sequences, the entries of these.
    """

    name: str
    source: tuple[str, ...]
    columns: tuple[Column, ...]
    tables: tuple[Table, ...] = ()
    series: tuple[str, ...] = ()
    keyed: bool = False


def tables_of(cls: type[BaseModel]) -> dict[str, tuple[Table, ...]]:
    """By name, the tables of a class of results, each as the way to it through the tables around it."""
    return dict(_tables_of(cls))


@cache
def _tables_of(cls: type[BaseModel]) -> dict[str, tuple[Table, ...]]:
    columns, tables = _parts(cls, (), top=True)
    ways = [(Table(SUMMARY, (), columns),), *_ways(tables, ())]
    last = [way[-1].name for way in ways]
    return {
        way[-1].name if last.count(way[-1].name) == 1 or _is_plain(way) else _full_name(way): way for way in ways
    }


def rows_of(record: BaseModel, name: str) -> list[Row]:
    """The rows of one of the tables of `tables_of`, by column."""
    way = _tables_of(type(record))[name]
    if name == SUMMARY:
        return [_row(way[0], record, {}, "")]
    return list(_rows(way, record, {}, ""))


def dtypes_of(cls: type[BaseModel], name: str) -> dict[str, DType]:
    """The kind of value of every column that the class alone tells, in order; keys of mappings are known by the rows."""
    found: dict[str, DType] = {}
    holder = ""
    for table in _tables_of(cls)[name]:
        own: dict[str, DType] = {column.name: column.dtype for column in table.columns if not column.spread}
        found = {_renamed(key, own, holder): dtype for key, dtype in found.items()} | own
        holder = table.name
    return found


def _ways(tables: Sequence[Table], around: tuple[Table, ...]) -> Iterator[tuple[Table, ...]]:
    for table in tables:
        yield (*around, table)
        yield from _ways(table.tables, (*around, table))


def _is_plain(way: tuple[Table, ...]) -> bool:
    return len(way) == 1 and len(way[0].source) <= 1 and not (way[0].series and way[0].source)


def _full_name(way: tuple[Table, ...]) -> str:
    return ".".join(part for table in way for part in dict.fromkeys((*table.source, table.name)))


def _rows(way: tuple[Table, ...], record: BaseModel, inherited: Row, holder: str) -> Iterator[Row]:
    table, *inner = way
    for element in _elements(table, record):
        row = _row(table, element, inherited, holder)
        if inner:
            yield from _rows(tuple(inner), element, row, table.name)
        else:
            yield row


def _row(table: Table, element: Any, inherited: Row, holder: str) -> Row:
    own: Row = {}
    for column in table.columns:
        value = _at(element, column.path)
        if column.spread:
            own |= {f"{column.name}_{key}": number for key, number in (value or {}).items()}
        else:
            own[column.name] = _cell(value)
    return {_renamed(key, own, holder): value for key, value in inherited.items()} | own


def _renamed(key: str, own: Mapping[str, Any], holder: str) -> str:
    return f"{holder}_{key}" if key in own else key


def _elements(table: Table, record: BaseModel) -> Iterator[Any]:
    held = _at(record, table.source)
    if held is None:
        return
    if table.keyed:
        for key, value in (_at(held, table.series) or {}).items():
            if any(column.name == "index" for column in table.columns):
                yield from ({"name": key, "index": i, table.series[0]: one} for i, one in enumerate(value))
            else:
                yield {"name": key, table.series[0]: value}
    elif table.series:
        columns = {name: _at(held, (name,)) for name in table.series}
        length = max((len(values) for values in columns.values() if values is not None), default=0)
        for place in range(length):
            yield {"index": place} | {
                name: None if values is None else values[place] for name, values in columns.items()
            }
    else:
        yield from held


def _at(value: Any, path: Sequence[str]) -> Any:
    for part in path:
        if value is None:
            return None
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def _cell(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return json.dumps(value, default=str) if isinstance(value, Mapping) else value


def _parts(
    cls: type[BaseModel], path: tuple[str, ...], *, top: bool = False
) -> tuple[tuple[Column, ...], tuple[Table, ...]]:
    """Columns and tables of a class of records that is reached by a path from the record of the row."""
    columns: list[Column] = []
    tables: list[Table] = []
    series: Mapping[str, Sequence[str]] = getattr(cls, "table_series", {})
    grouped = {name for names in series.values() for name in names}
    for name, field in cls.model_fields.items():
        if name in grouped or (name in _LEFT_OUT and not top and "stamp" in cls.model_fields):
            continue
        _add(cls, name, field.annotation, path, columns, tables)
    for name, fields in series.items():
        tables.append(_series_table(cls, name, tuple(fields), path))
    for name in getattr(cls, "table_derived", ()):
        hint = get_type_hints(getattr(cls, name).fget)["return"]
        columns.append(Column("_".join((*path, name)), (*path, name), _dtype(hint)))
    return tuple(columns), tuple(tables)


def _add(
    cls: type[BaseModel], name: str, hint: Any, path: tuple[str, ...], columns: list[Column], tables: list[Table]
) -> None:
    plain, label = _plain(hint), "_".join((*path, name))
    inner = get_args(plain)
    if _is_record(plain):
        found, within = _parts(plain, (*path, name))
        columns += found
        tables += within
    elif _is_sequence(plain) and _is_record(_plain(inner[0])):
        found, within = _parts(_plain(inner[0]), ())
        tables.append(Table(name, (*path, name), found, within))
    elif _is_sequence(plain) and _dtype(inner[0]) != "text" and name not in getattr(cls, "table_cells", ()):
        tables.append(_series_table(cls, name, (name,), path))
    elif _is_mapping(plain) and _dtype(inner[1]) in ("int", "float"):
        columns.append(Column(label, (*path, name), _dtype(inner[1]), spread=True))
    elif _is_mapping(plain) and (_dtype(inner[1]) == "text" or _holds_sequences(plain)):
        tables.append(_series_table(cls, name, (name,), path))
    else:
        columns.append(Column(label, (*path, name), _dtype(plain)))


def _series_table(cls: type[BaseModel], name: str, fields: tuple[str, ...], path: tuple[str, ...]) -> Table:
    hints = [_plain(cls.model_fields[field].annotation) for field in fields]
    keyed = _is_mapping(hints[0])
    if keyed and _holds_sequences(hints[0]):
        hints = [get_args(hints[0])[1]]
        first = [Column("name", ("name",), "text"), Column("index", ("index",), "int")]
    else:
        first = [Column("name", ("name",), "text") if keyed else Column("index", ("index",), "int")]
    values = [
        Column(field, (field,), _dtype(get_args(hint)[-1])) for field, hint in zip(fields, hints, strict=True)
    ]
    return Table(name, path, (*first, *values), series=fields, keyed=keyed)


def _plain(hint: Any) -> Any:
    """The type without what is annotated, and without None."""
    if get_origin(hint) is Annotated:
        return _plain(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        kept = [_plain(part) for part in get_args(hint) if part is not NoneType]
        return kept[0] if len(kept) == 1 else Union[tuple(kept)]  # noqa: UP007
    return hint


def _dtype(hint: Any) -> DType:
    plain = _plain(hint)
    if get_origin(plain) is Literal:
        kinds = {type(value) for value in get_args(plain)}
    elif get_origin(plain) is Union:
        kinds = set(get_args(plain))
    else:
        kinds = {plain}
    names: dict[Any, DType] = {bool: "bool", int: "int", float: "float", str: "text"}
    if kinds == {int, float}:
        return "float"
    return names.get(kinds.pop(), "text") if len(kinds) == 1 else "mixed"


def _is_record(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _is_sequence(hint: Any) -> bool:
    origin = get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Sequence)


def _is_mapping(hint: Any) -> bool:
    origin = get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _holds_sequences(mapping: Any) -> bool:
    inner = _plain(get_args(mapping)[1])
    return _is_sequence(inner) and _dtype(get_args(inner)[0]) != "text"
