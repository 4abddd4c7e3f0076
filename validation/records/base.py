"""What every record of a result has: immutability, a version, the stamp of the process that made it, and its kind.

A result holds no time stamp: two runs with one seed on one machine write the same bytes.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, TypeVar

import numpy
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict

from wtacrs.estimators.core.errors import InputError

SCHEMA_VERSION: Literal[3] = 3


def hyphenated(value: object) -> object:
    """Spell a score kind of an older file, "row norms", as it is spelled today."""
    return value.replace(" ", "-") if isinstance(value, str) else value


ScoreKind = Annotated[Literal["oracle", "row-norms", "stale"], BeforeValidator(hyphenated)]
"""Kinds of row scores that `score_kinds.layer_scores` makes."""


def with_lean(estimator: str, lean: str | None) -> str:
    """How a step is taken, in a few words: by which estimator, and with which lean neighbours.

    >>> with_lean("exact", "attention,head"), with_lean("exact", None)
    ('exact, lean attention,head', 'exact')
    """
    return estimator if lean is None else f"{estimator}, lean {lean}"


class Record(BaseModel):
    """Base of all records: immutable, no unknown fields; NaN and infinity are written as such."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


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
    """Base of all results: what a result file holds. A sub-class says its kind as `kind: Literal["name"] = "name"`."""

    kind: str
    stamp: Stamp


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
