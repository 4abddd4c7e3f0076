"""One typed, versioned JSON schema for every result; figures and reports are drawn from these files alone.

A result holds no time stamp: two runs with one seed on one machine write the same bytes. Variances, squared
biases and squared errors are relative to ‖G‖²_F, the squared norm of the exact product of the layer.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import numpy
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError, model_validator

from wtacrs.estimators.errors import InputError
from wtacrs.validation.files import replacing

SCHEMA_VERSION: Literal[2] = 2


class Record(BaseModel):
    """Base of all records: immutable, no unknown fields; NaN and infinity are written as such."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Stamp(Record):
    """What is needed to repeat a run."""

    schema_version: Literal[2] = SCHEMA_VERSION
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


class ComparisonRow(Record):
    """One layer × estimator × score: moments relative to ‖G‖², bytes and multiplications.

    `method` says how the moments were found: "closed form" or "monte carlo"; `draws` and the standard errors are
    set in the second case only. `budget` is that of the estimator, or of the one that it wraps. `multiplications`
    (see `Estimator.multiplications`) is None where the estimator does not state them.
    """

    layer: str
    estimator: str
    budget: int | float | None
    scores: Literal["row norms", "oracle"]
    n: int
    d: int
    m: int
    bias_squared: float
    variance: float
    mse: float
    method: Literal["closed form", "monte carlo"]
    draws: int | None = None
    bias_squared_error: float | None = None
    variance_error: float | None = None
    saved_bytes: int
    exact_bytes: int
    multiplications: int | None
    exact_multiplications: PositiveInt

    @property
    def relative_multiplications(self) -> float | None:
        """Multiplications over those of the exact product."""
        return None if self.multiplications is None else self.multiplications / self.exact_multiplications


class ComparisonResult(Record):
    """Table of estimators over captured layers."""

    kind: Literal["comparison"] = "comparison"
    stamp: Stamp
    rows: Sequence[ComparisonRow]


class WinnerSweep(Record):
    """Exact variance of WTA-CRS on one layer for every number of winners |C| = 0 … k − 1.

    `paper`, `optimal` and `best` are numbers of winners: the paper's rule, the exact-variance rule (S_T² form)
    and the true minimiser; `crs` is the variance of plain CRS with the same scores and k.
    """

    layer: str
    scores: Literal["row norms", "oracle"]
    n: int
    k: int
    variance: Sequence[float]
    paper: int
    optimal: int
    best: int
    crs: float


class SweepResult(Record):
    """|C| sweeps over captured layers."""

    kind: Literal["sweep"] = "sweep"
    stamp: Stamp
    sweeps: Sequence[WinnerSweep]


class Verdict(Record):
    """One law checked on one estimator; `status` "expected failure" carries the declared reason in `detail`."""

    law: str
    status: Literal["pass", "fail", "expected failure", "not applicable"]
    detail: str


class CheckResult(Record):
    """The law-book applied to one estimator."""

    kind: Literal["check"] = "check"
    stamp: Stamp
    estimator: str
    verdicts: Sequence[Verdict]

    @property
    def passed(self) -> bool:
        """No law failed."""
        return all(v.status != "fail" for v in self.verdicts)


class TrainingPoint(Record):
    """One evaluation: mean training loss since the last one, dev metrics, seconds of training so far."""

    step: int
    epoch: float
    train_loss: float | None
    dev: dict[str, float]
    seconds: float


class TrainingResult(Record):
    """One fine-tuning run; `majority` is what predicting the most frequent training label scores on dev."""

    kind: Literal["training"] = "training"
    stamp: Stamp
    task: str
    model: str
    estimator: str
    parameters: int
    converted: int
    train_size: int
    dev_size: int
    metric: str
    majority: float
    best: float
    final: float
    history: Sequence[TrainingPoint]


class Series(Record):
    """Points of one line or cloud; `estimator` is the spec whose look it takes, None for a line of reference."""

    label: str
    estimator: str | None = None
    x: Annotated[Sequence[float], Field(min_length=1)]
    y: Annotated[Sequence[float], Field(min_length=1)]

    @model_validator(mode="after")
    def _as_long(self) -> Series:
        if len(self.x) != len(self.y):
            raise ValueError(f"series {self.label!r} has {len(self.x)} x and {len(self.y)} y")
        return self


class Requirement(Record):
    """`factor · smaller ≤ larger + slack`, in words `text`; a side is a number, or the y of a series by its label."""

    text: str
    smaller: str | float
    larger: str | float
    where: Literal["every point", "nine points in ten", "some point", "first point", "last point"] = "every point"
    factor: float = 1.0
    slack: float = 0.0


class Claim(Record):
    """One sentence of the theory, the numbers that bear it out, and what must be true of these numbers.

    `status` "looks true" marks an ordering that is easily believed and false: `title` says what looks true, and the
    requirements are those of its counter-example. `source` names paper or theorem, `method` how the numbers were
    found: nothing here is sampled.
    """

    name: str
    title: str
    statement: str
    status: Literal["true", "looks true"]
    source: str
    method: Literal["closed form", "enumeration"]
    x_name: str
    y_name: str
    series: Annotated[Sequence[Series], Field(min_length=1)]
    requirements: Annotated[Sequence[Requirement], Field(min_length=1)]

    @model_validator(mode="after")
    def _comparable(self) -> Claim:
        places = {s.label: list(s.x) for s in self.series}
        if len(places) < len(self.series):
            raise ValueError(f"claim {self.name!r}: two series have one label")
        for requirement in self.requirements:
            labels = [side for side in (requirement.smaller, requirement.larger) if isinstance(side, str)]
            unknown = [label for label in labels if label not in places]
            if unknown or not labels:
                raise ValueError(f"claim {self.name!r}: {requirement.text!r} names no series {unknown or labels}")
            if any(places[label] != places[labels[0]] for label in labels):
                raise ValueError(f"claim {self.name!r}: {requirement.text!r} compares series at different x")
        return self

    def met(self, requirement: Requirement) -> bool:
        """Whether the numbers meet a requirement; NaN meets none."""
        smaller, larger = self._side(requirement.smaller), self._side(requirement.larger)
        length = max(len(smaller), len(larger))
        pairs = zip(smaller * (length // len(smaller)), larger * (length // len(larger)), strict=True)
        found = [requirement.factor * a <= b + requirement.slack for a, b in pairs]
        match requirement.where:
            case "first point":
                return found[0]
            case "last point":
                return found[-1]
            case "some point":
                return any(found)
            case "nine points in ten":
                return sum(found) >= 0.9 * len(found)
        return all(found)

    def _side(self, side: str | float) -> list[float]:
        if isinstance(side, str):
            return list(next(s.y for s in self.series if s.label == side))
        return [side]

    @property
    def broken(self) -> list[str]:
        """The requirements, in words, that the numbers do not meet."""
        return [r.text for r in self.requirements if not self.met(r)]

    @property
    def holds(self) -> bool:
        """Whether the numbers meet every requirement: they bear out a truth, or are a counter-example."""
        return not self.broken

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        if not self.holds:
            return "not borne out"
        return "holds" if self.status == "true" else "false, by counter-example"


class TheoryResult(Record):
    """What is true of the estimators, and what only looks true."""

    kind: Literal["theory"] = "theory"
    stamp: Stamp
    claims: Sequence[Claim]

    @property
    def holds(self) -> bool:
        """Every claim holds."""
        return all(claim.holds for claim in self.claims)


Result = Annotated[
    ComparisonResult | SweepResult | CheckResult | TrainingResult | TheoryResult, Field(discriminator="kind")
]
_ANY_RESULT: TypeAdapter[Result] = TypeAdapter(Result)


def write_text(path: Path, text: str) -> Path:
    """Write a file whole or not at all; parent folders are made."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def write_result(path: Path, result: Result) -> Path:
    """Write a result as indented JSON, atomically."""
    return write_text(path, result.model_dump_json(indent=2) + "\n")


def load_result(path: Path) -> Result:
    """Read any result.

    Raises:
        InputError: if the file is missing, is not JSON, is of another version, or does not fit the schema.
    """
    try:
        return _ANY_RESULT.validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"result file {path}: {error.strerror or error}") from None
    except ValidationError as error:
        for found in error.errors():
            if found["loc"][-1:] == ("schema_version",):
                told = f"has schema version {found['input']!r}, and only {SCHEMA_VERSION} is read: make it again"
                raise InputError(f"result file {path} {told}") from None
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"result file {path} does not fit the schema: {where}: {first['msg']}") from None
