"""What every record of a result has: immutability, a version, and the stamp of the process that made it."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Annotated, Literal

import numpy
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict

SCHEMA_VERSION: Literal[3] = 3


def hyphenated(value: object) -> object:
    """Spell a score kind of an older file, "row norms", as it is spelled today."""
    return value.replace(" ", "-") if isinstance(value, str) else value


ScoreKind = Annotated[Literal["oracle", "row-norms", "stale"], BeforeValidator(hyphenated)]
"""Kinds of row scores that `score_kinds.layer_scores` makes."""


class Record(BaseModel):
    """Base of all records: immutable, no unknown fields; NaN and infinity are written as such."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Stamp(Record):
    """What is needed to repeat a run."""

    schema_version: Literal[3] = SCHEMA_VERSION
    wtacrs: str
    python: str
    torch: str
    numpy: str
    device: str
    threads: int
    seed: int | None
    inputs: dict[str, str] = {}


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
        inputs=inputs or {},
    )
