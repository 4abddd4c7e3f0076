"""Records of the tests on captured layers: bias, closed form of the variance, comparison with a baseline.

Biases are relative to ‖G‖, the norm of the layer's exact product, variances to ‖G‖². `p_value` is that of one test by
itself, `adjusted` is Holm's over all tests of the same family in the result (one for biases, one for variances, one for
comparisons); both are None where the answer is exact, which is no test and belongs to no family.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from wtacrs.validation.records.base import Record, Result, ScoreKind, register_result

Method = Literal["sampling", "enumeration"]
BiasVerdict = Literal["accepted", "rejected", "biased, as declared"]


class BiasFinding(Record):
    """The bias on one layer, see `significance.MeanTest` for the numbers.

    The verdict is "rejected" where the estimator claims to be unbiased, and "biased, as declared" where it does not.
    By enumeration `bias_squared` and `along` are exact, errors are None, and `rounding` decides.
    """

    method: Method
    bias_squared: float
    bias_squared_error: float | None = None
    along: float
    along_error: float | None = None
    rounding: float
    detectable: float | None = None
    detectable_along: float | None = None
    p_value: float | None = None
    adjusted: float | None = None
    verdict: BiasVerdict

    @property
    def bias(self) -> float:
        """Estimated norm of the bias, 0 where its square is estimated below 0."""
        return math.sqrt(max(self.bias_squared, 0.0))


class VarianceFinding(Record):
    """The measured variance beside the closed form; `detectable` is a share of the closed form."""

    method: Method
    measured: float
    error: float | None = None
    stated: float
    detectable: float | None = None
    p_value: float | None = None
    adjusted: float | None = None
    verdict: Literal["accepted", "rejected"]


class RatioFinding(Record):
    """Variance, or mean squared error, over that of the baseline `against`.

    `low` … `high` is the interval of this one comparison by itself, at 1 − level.
    """

    against: str
    quantity: Literal["variance", "mse"]
    ratio: float
    low: float
    high: float
    method: Literal["closed form", "monte carlo"]
    p_value: float | None = None
    adjusted: float | None = None
    verdict: Literal["lower", "higher", "no difference"]


class LayerTest(Record):
    """All tests of one estimator on one layer; `draws` is 0 where nothing was drawn."""

    layer: str
    estimator: str
    unbiased: bool
    scores: ScoreKind
    n: int
    d: int
    m: int
    draws: int
    bias: BiasFinding
    variance: VarianceFinding | None
    ratio: RatioFinding | None


@register_result
class LayerTestResult(Result):
    """Tests of estimators over captured layers; each family of verdicts keeps the level as a whole."""

    kind: Literal["layer tests"] = "layer tests"
    level: float
    tests: Sequence[LayerTest]

    @property
    def broken(self) -> list[LayerTest]:
        """Where a claim was rejected: no bias, or the closed form of the variance."""
        return [
            test
            for test in self.tests
            if test.bias.verdict == "rejected" or (test.variance and test.variance.verdict == "rejected")
        ]
