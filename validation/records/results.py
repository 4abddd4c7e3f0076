"""One typed, versioned JSON schema for every result; figures and reports are drawn from these files alone.

A result holds no time stamp: two runs with one seed on one machine write the same bytes. Variances, squared
biases and squared errors are relative to ‖G‖²_F, the squared norm of the exact product of the layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, PositiveInt, TypeAdapter, ValidationError, model_validator

from wtacrs.estimators.core.errors import InputError
from wtacrs.validation.files import replacing
from wtacrs.validation.records.base import SCHEMA_VERSION, Record, ScoreKind, Stamp
from wtacrs.validation.records.experiment import ExperimentResult
from wtacrs.validation.records.layer_tests import LayerTestResult
from wtacrs.validation.records.memory import MemoryResult
from wtacrs.validation.records.noise import NoiseResult
from wtacrs.validation.records.numbers import NumbersResult
from wtacrs.validation.records.pretrain import PretrainingResult
from wtacrs.validation.records.scale import ScaleResult
from wtacrs.validation.records.studies import BudgetsResult, NormsResult, TransferResult
from wtacrs.validation.records.theory import TheoryResult
from wtacrs.validation.records.training import TrainingResult


class ComparisonRow(Record):
    """One layer × estimator × score: moments relative to ‖G‖², bytes and multiplications.

    `method` says how the moments were found: "closed form" or "monte carlo"; `draws` and the standard errors are
    set in the second case only. `requested` is the estimator as it was asked for, `bytes_share` the share of the bytes
    its size was fitted to (None: it was asked for at this size, padding included in n). `budget` is that of the
    estimator, or of the one that it wraps. `mse_of_mean` is the error of the mean of `steps` independent estimates,
    `bias² + variance / steps`, without a bias² that was measured on an estimator known to be unbiased; `cosine` is
    `⟨EĜ, G⟩ / (‖G‖ (E‖Ĝ‖²)^½)`. `macs` (see `Estimator.macs`) is None where the estimator does
    not state them.
    """

    layer: str
    estimator: str
    requested: str
    bytes_share: float | None
    budget: int | float | None
    scores: ScoreKind
    n: int
    d: int
    m: int
    bias_squared: float
    variance: float
    mse: float
    steps: PositiveInt
    mse_of_mean: float
    cosine: float
    method: Literal["closed form", "monte carlo"]
    draws: int | None = None
    bias_squared_error: float | None = None
    variance_error: float | None = None
    mse_error: float | None = None
    cosine_error: float | None = None
    saved_bytes: int
    exact_bytes: int
    macs: int | None = Field(validation_alias=AliasChoices("macs", "multiplications"))
    exact_macs: PositiveInt = Field(validation_alias=AliasChoices("exact_macs", "exact_multiplications"))

    @property
    def relative_macs(self) -> float | None:
        """Multiply–accumulates over those of the exact product."""
        return None if self.macs is None else self.macs / self.exact_macs


class ComparisonResult(Record):
    """Table of estimators over captured layers."""

    kind: Literal["comparison"] = "comparison"
    stamp: Stamp
    rows: Sequence[ComparisonRow]


class WinnerSweep(Record):
    """Variance of WTA-CRS on one layer at one budget, for numbers of winners |C| from 0 to k − 1.

    `captures` says where the layer is from: the model, and the training step if it is known. `variance[i]` belongs to
    `winners[i]` rows kept with certainty; where k is large not every number is listed, but 0, k − 1 and the choices
    are. `paper`, `optimal` and `best` are numbers of winners: the paper's rule, the S_T² rule and the true minimiser
    over all of 0 … k − 1; `crs` is the variance of plain CRS with the same scores and k.

    With `products` the variances are exact and relative to ‖G‖². Without, the term ‖G_T‖² was left out: they are upper
    bounds, `S_T Σ_T w²/s / (k − |C|)`, relative to the same sums over all rows, and `best` is None.
    """

    captures: str
    layer: str
    scores: ScoreKind
    budget: int | float
    n: int
    k: int
    products: bool
    winners: Sequence[int]
    variance: Sequence[float]
    paper: int
    optimal: int
    best: int | None
    crs: float

    @model_validator(mode="after")
    def _as_long(self) -> WinnerSweep:
        if len(self.winners) != len(self.variance):
            raise ValueError(
                f"sweep of layer {self.layer!r} has {len(self.winners)} winners and {len(self.variance)} variances"
            )
        return self


class SweepResult(Record):
    """|C| sweeps over captured layers."""

    kind: Literal["sweep"] = "sweep"
    stamp: Stamp
    sweeps: Sequence[WinnerSweep]


class Verdict(Record):
    """One property checked on one estimator; `status` "expected failure" carries the declared reason in `detail`."""

    name: str = Field(validation_alias=AliasChoices("name", "law"))
    status: Literal["pass", "fail", "expected failure", "not applicable"]
    detail: str


class CheckResult(Record):
    """The list of properties applied to one estimator."""

    kind: Literal["check"] = "check"
    stamp: Stamp
    estimator: str
    verdicts: Sequence[Verdict]

    @property
    def passed(self) -> bool:
        """No property failed."""
        return all(v.status != "fail" for v in self.verdicts)


Result = Annotated[
    ComparisonResult
    | SweepResult
    | NoiseResult
    | CheckResult
    | LayerTestResult
    | MemoryResult
    | PretrainingResult
    | TrainingResult
    | TheoryResult
    | NormsResult
    | BudgetsResult
    | TransferResult
    | ScaleResult
    | NumbersResult
    | ExperimentResult,
    Field(discriminator="kind"),
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
