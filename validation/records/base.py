"""What every record of a result has: immutability, a version, the stamp of the process that made it, and its kind.

A result holds no time stamp: two runs with one seed on one machine write the same bytes.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar

import numpy
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict

from wtacrs.estimators.core.errors import InputError
from wtacrs.validation.records.flat import SUMMARY, Row, Table, dtypes_of, rows_of, tables_of
from wtacrs.validation.records.frames import frame_of, html_table

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA_VERSION: Literal[3] = 3


def hyphenated(value: object) -> object:
    """Spell a score kind of an older file, "row norms", as it is spelled today."""
    return value.replace(" ", "-") if isinstance(value, str) else value


ScoreKind = Annotated[Literal["oracle", "row-norms", "stale"], BeforeValidator(hyphenated)]
"""Kinds of row scores that `score_kinds.layer_scores` makes."""


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number of things in words.

    >>> counted(1, "layer"), counted(1200, "layer"), counted(2, "batch", "batches")
    ('1 layer', '1,200 layers', '2 batches')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def counted_layers(entries: Iterable[str]) -> str:
    """How many layers captured entries are of: `<layer>#<batch>`, or `<layer>@<call>#<batch>`.

    >>> counted_layers(["wi#0", "wi#1", "wi@1#0", "wo#0"])
    '2 layers'
    """
    return counted(len({entry.partition("#")[0].partition("@")[0] for entry in entries}), "layer")


def with_lean(estimator: str, lean: str | None) -> str:
    """How a step is taken, in a few words: by which estimator, and with which lean neighbours.

    >>> with_lean("exact", "attention,head"), with_lean("exact", None)
    ('exact, lean attention,head', 'exact')
    """
    return estimator if lean is None else f"{estimator}, lean {lean}"


class Record(BaseModel):
    """Base of all records: immutable, no unknown fields; NaN and infinity are written as such.

    A class says by the three `table_` names what its fields do not say of its tables; see `flat`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
    table_series: ClassVar[Mapping[str, Sequence[str]]] = {}
    table_cells: ClassVar[Sequence[str]] = ()
    table_derived: ClassVar[Sequence[str]] = ()


class Stamp(Record):
    """What is needed to repeat a run; `processor` is empty in files of before it was noted."""

    schema_version: Literal[3] = SCHEMA_VERSION
    wtacrs: str
    python: str
    torch: str
    numpy: str
    device: str
    threads: int
    seed: int | None
    processor: str = ""
    inputs: dict[str, str] = {}


@cache
def processor() -> str:
    """Name of the processor and the instruction set that torch's kernels use; both decide how sums are rounded.

    Where the system tells family and model they belong to the name, which hosts of virtual machines cut short.
    """
    name = platform.processor() or platform.machine()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        found: dict[str, str] = {}
        for key, _, value in (line.partition(":") for line in lines):
            found.setdefault(key.strip(), value.strip())
        name = found.get("model name", name)
        if "cpu family" in found and "model" in found:
            name += f" {found['cpu family']}/{found['model']}"
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def stamp(*, seed: int | None, device: str = "cpu", inputs: dict[str, str] | None = None) -> Stamp:
    """Stamp of the running process; `inputs` names the files, specs or options that went in."""
    return Stamp(
        wtacrs=version("wtacrs"),
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=numpy.__version__,
        device=device,
        threads=torch.get_num_threads(),
        seed=seed,
        processor=processor(),
        inputs=inputs or {},
    )


class Result(Record):
    """Base of all results: what a result file holds. A sub-class says its kind as `kind: Literal["name"] = "name"`.

    `main_table` is the table of `to_frame()` and `to_rows()` where none is named: the first one if it is not said. A
    `compact` kind has thousands of numbers: its file is one line.
    """

    main_table: ClassVar[str | None] = None
    compact: ClassVar[bool] = False

    kind: str
    stamp: Stamp

    @property
    def headline(self) -> str:
        """What the result holds, in a few words: model and task if it says them, and how many rows its tables have."""
        told = [str(getattr(self, name)) for name in ("model", "task") if name in type(self).model_fields]
        held = [name for name, way in self._ways().items() if _holds_records(way)]
        return ", ".join([*told, *(f"{count:,} {name}" for name in held if (count := len(self.to_rows(name))))])

    def __repr__(self) -> str:
        seed = "" if self.stamp.seed is None else f", seed {self.stamp.seed}"
        return f"{type(self).__name__}({self.headline}{seed})"

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        return html_table(self.to_rows(), repr(self))

    @property
    def table_names(self) -> list[str]:
        """Names of the tables that `to_frame` and `to_rows` take, the one they give by themselves first."""
        return list(self._ways())

    def to_rows(self, table: str | None = None) -> list[Row]:
        """One of the result's tables as plain values by column, one mapping per observation.

        The columns are the fields of the records, with the units that their classes state.

        Args:
            table: its name, one of `table_names`; the main one if None.

        Raises:
            InputError: if the result has no table of this name.
        """
        return rows_of(self, self._table(table))

    def to_frame(self, table: str | None = None) -> DataFrame:
        """One of the result's tables as a tidy pandas data frame: one row per observation.

        The columns are those of `to_rows`; `frame.attrs` has the kind of the result and the name of the table.

        Args:
            table: its name, one of `table_names`; the main one if None.

        Raises:
            InputError: if the result has no table of this name, or pandas is not installed.
        """
        name = self._table(table)
        return frame_of(rows_of(self, name), dtypes_of(type(self), name), {"kind": self.kind, "table": name})

    def _table(self, name: str | None) -> str:
        known = self.table_names
        if name is None:
            return known[0]
        if name not in known:
            raise InputError(f"table={name!r}: a result of kind {self.kind!r} has the tables {', '.join(known)}")
        return name

    @classmethod
    def _ways(cls) -> dict[str, tuple[Table, ...]]:
        """The tables by name: the main one first, what the stamp and the result say once last."""
        found = tables_of(cls)
        main = cls.main_table or next((name for name, way in found.items() if _holds_records(way)), SUMMARY)
        last = [name for name in ("inputs", SUMMARY) if name in found]
        names = [main, *(name for name in found if name not in last), *last]
        return {name: found[name] for name in dict.fromkeys(names)}


def _holds_records(way: Sequence[Table]) -> bool:
    """Whether a table has one row for each of the records of a field of the result."""
    return len(way) == 1 and not way[0].series and len(way[0].source) == 1


ResultT = TypeVar("ResultT", bound=Result)
_KINDS: dict[str, type[Result]] = {}


def register_result(cls: type[ResultT]) -> type[ResultT]:
    """Class decorator: from now on `load_result` reads results of this kind.

    Code outside this package may register kinds of its own; it then registers their figures and section with
    `figures.kinds.register_view` and their table with `integration.tables.kinds.register_table`.

    Raises:
        InputError: if the class names no kind, or its kind is taken.
    """
    kind = cls.model_fields["kind"].default
    if not isinstance(kind, str):
        raise InputError(f'{cls.__name__} must say its kind, as in kind: Literal["name"] = "name"')
    if kind in _KINDS:
        raise InputError(f"{cls.__name__}: the kind {kind!r} is taken by {_KINDS[kind].__name__}")
    _KINDS[kind] = cls
    return cls


def result_kinds() -> Mapping[str, type[Result]]:
    """The class of every kind that is registered, in the order of registration."""
    return MappingProxyType(_KINDS)


def expect(result: object, cls: type[ResultT], what: str) -> ResultT:
    """`result`, if it is of the given class.

    Raises:
        InputError: if it is of another kind.
    """
    if not isinstance(result, cls):
        wanted = cls.model_fields["kind"].default
        got = getattr(result, "kind", type(result).__name__)
        raise InputError(f"{what} holds a result of kind {got!r}; this needs kind {wanted!r}")
    return result
