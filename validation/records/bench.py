"""Estimators beside the exact product: time, bytes, variance and operations, and what the machine reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import ClassVar, Literal

from wtacrs.validation.records.base import Record, Result, ScoreKind, register_result
from wtacrs.validation.records.front import FrontResult

BenchPrecision = Literal["fp64", "fp32", "bf16", "fp16"]


class Quartiles(Record):
    """Median and quartiles over the rounds."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        """Of at least one value.

        >>> Quartiles.of([3.0, 1.0, 2.0])
        Quartiles(low=1.5, median=2.0, high=2.5)
        """
        if len(values) == 1:
            return cls(low=values[0], median=values[0], high=values[0])
        low, _, high = quantiles(values, n=4, method="inclusive")
        return cls(low=low, median=median(values), high=high)


class Roofs(Record):
    """What the machine reaches in the same run: the fastest of several rounds.

    `products` has 2·N³ over the seconds of a plain product of two N × N matrices, by precision, "int8" included where
    there is such a product. `copy_rate` is the bytes read and written per second when a tensor is copied.
    """

    products: Mapping[str, float]
    copy_rate: float

    def least_seconds(self, macs: int | None, moved: int, precision: str) -> float:
        """The longer of multiplying and moving bytes at these rates; a product may be taken in fp32 too.

        Args:
            macs: multiply–accumulates; None where they are unknown, and moving alone counts.
            moved: bytes.
            precision: of the product.
        """
        rate = max(self.products[name] for name in (precision, "fp32"))
        return max(2 * (macs or 0) / rate, moved / self.copy_rate)


class BenchRow(Record):
    """One estimator on one problem.

    Attributes:
        layer: the captured layer, None for Gaussian x and dY.
        n: rows of x and dY.
        d: columns of x.
        m: columns of dY.
        estimator: the spec.
        requested: as it was asked for.
        scores: what rows are sampled by; where these are row norms, `compress` finds them.
        exact: seconds of `dY.T @ X`.
        compress: seconds.
        contract: seconds.
        both: seconds of compress and contract.
        ratio: `both` over the seconds of the exact product in the same round.
        kept: bytes of what compress returns.
        macs: as the estimator states them, None if it does not.
        operations: of torch in both verbs, views left out.
        moved: bytes that these operations read and write.
        multiplied_in: precision of its product: that of x and dY, or int8.
        least: bytes that any implementation reads and writes: x, what is kept (twice), the rows of dY, the result.
        least_seconds: for its MACs and `least`, at the rates of `Roofs`.
        variance: relative to ‖G‖².
        variance_error: its standard error, None where it is in closed form.
        bias_squared: relative to ‖G‖²; 0 for what is unbiased.
        draws: of Monte Carlo, None for a closed form.
        over_paper: variance and squared bias over the variance of the paper's WTA-CRS that keeps as many bytes of a bf16
            x, with the same scores; None where that would keep all rows or none.
    """

    table_derived: ClassVar[Sequence[str]] = ("kept_share", "error", "roof_share")

    layer: str | None
    n: int
    d: int
    m: int
    estimator: str
    requested: str
    scores: ScoreKind
    exact: Quartiles
    compress: Quartiles
    contract: Quartiles
    both: Quartiles
    ratio: Quartiles
    kept: int
    macs: int | None
    operations: int
    moved: int
    multiplied_in: str
    least: int
    least_seconds: float
    variance: float
    variance_error: float | None
    bias_squared: float
    draws: int | None
    over_paper: float | None

    @property
    def kept_share(self) -> float:
        """Bytes kept over those of x in bf16."""
        return self.kept / (2 * self.n * self.d)

    @property
    def error(self) -> float:
        """E‖Ĝ − G‖² over ‖G‖²."""
        return self.variance + self.bias_squared

    @property
    def roof_share(self) -> float:
        """The least time over the measured one; above 1 where the data stay in the cache."""
        return self.least_seconds / self.both.median


@register_result
class BenchResult(Result):
    """Every estimator on every problem, interleaved; `step` has the whole training step where it was measured."""

    kind: Literal["bench"] = "bench"
    precision: BenchPrecision
    rounds: int
    roofs: Roofs
    rows: Sequence[BenchRow]
    step: FrontResult | None = None
