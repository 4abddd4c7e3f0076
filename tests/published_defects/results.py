"""What the audit measured, as data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from wtacrs.estimators import InputError
from wtacrs.validation.records.base import Record, Stamp


class Found(Record):
    """A defect under repeated checks.

    Attributes:
        name: of the piece.
        seeds: how many checks of its law there were.
        found: how many of them said "broken".
        bias: largest deviation along a direction that rejects, median over the seeds; None if no mean was tested.
        error: standard error of the mean along this direction.
        draws: median.
        seconds: median of one check of the law.
        broken: laws that one check of everything finds broken.
        whole_seconds: that it took.
    """

    name: str
    seeds: int
    found: int
    bias: float | None
    error: float | None
    draws: int | None
    seconds: float
    broken: Sequence[str]
    whole_seconds: float


class Silent(Record):
    """A sound piece under repeated checks of everything.

    Attributes:
        name: of the piece.
        seeds: how many checks there were.
        alarms: laws that were called broken, over all seeds.
        undecided: laws that ended undecided.
        ruled_out: the largest bias that any law of any seed left possible.
        seconds: median of one check.
        outcome: of one check that asks for biases of a tenth.
        closer: the largest bias that this one left possible.
        whole_seconds: that it took.
    """

    name: str
    seeds: int
    alarms: int
    undecided: int
    ruled_out: float
    seconds: float
    outcome: str
    closer: float
    whole_seconds: float


class Alarms(Record):
    """False alarms of one law on a sound piece, at a level that can be seen.

    Attributes:
        law: that was checked.
        name: of the piece.
        level: of the law.
        stages: at most; the level of one is an eleventh.
        seeds: how many checks.
        alarms: how many of them said "broken".
    """

    law: str
    name: str
    level: float
    stages: int
    seeds: int
    alarms: int


class Power(Record):
    """How often a law finds a planted defect.

    Attributes:
        law: that was checked.
        name: of the piece.
        level: of the whole check.
        seeds: how many checks.
        found: how many of them said "broken".
        draws: median.
    """

    law: str
    name: str
    level: float
    seeds: int
    found: int
    draws: int | None


class Audit(Record):
    """All of it."""

    stamp: Stamp
    defects: Sequence[Found]
    sound: Sequence[Silent]
    alarms: Sequence[Alarms]
    power: Sequence[Power]


def read(path: Path) -> Audit:
    """What was measured.

    Raises:
        InputError: if the file cannot be read or holds something else.
    """
    try:
        return Audit.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"{path}: {error}") from None
