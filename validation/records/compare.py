"""Estimators compared over captured layers, as data.

Variances, squared biases and squared errors are relative to ‖G‖²_F, the squared norm of the exact product of the layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import AliasChoices, Field, PositiveInt

from wtacrs.validation.records.base import Record, Result, ScoreKind, counted, counted_layers, register_result


class ComparisonRow(Record):
    """One layer × estimator × score: moments relative to ‖G‖², bytes and MACs.

    `method` says how the moments were found: "closed form" or "monte carlo"; `draws` and the standard errors are
    set in the second case only. `requested` is the estimator as it was asked for, `bytes_share` the share of the bytes
    its size was fitted to (None: it was asked for at this size, padding included in n). `budget` is that of the
    estimator, or of the one that it wraps. `mse_of_mean` is the error of the mean of `steps` independent estimates,
    `bias² + variance / steps`, without a measured bias² that is within five standard errors of zero on an estimator that
    is said to be unbiased; `cosine` is
    `⟨EĜ, G⟩ / (‖G‖ (E‖Ĝ‖²)^½)`. `macs` (see `Estimator.macs`) is None where the estimator does
    not state them. `time` is over that of what is replaced, the exact product or a layer's whole step, and is measured
    where somebody else's product or layer is compared.
    """

    table_derived: ClassVar[Sequence[str]] = ("relative_macs",)

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
    time: float | None = None

    @property
    def relative_macs(self) -> float | None:
        """Multiply–accumulates over those of the exact product."""
        return None if self.macs is None else self.macs / self.exact_macs


@register_result
class ComparisonResult(Result):
    """Table of estimators over captured layers."""

    kind: Literal["comparison"] = "comparison"
    rows: Sequence[ComparisonRow]

    @property
    def headline(self) -> str:
        """Numbers of layers and estimators."""
        estimators = {row.requested for row in self.rows}
        return f"{counted_layers(row.layer for row in self.rows)} × {counted(len(estimators), 'estimator')}"
