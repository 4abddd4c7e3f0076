"""Records of the tests on captured layers: bias, closed form of the variance, comparison with a baseline.

Biases are relative to ‖G‖, the norm of the layer's exact product, variances to ‖G‖². `p_value` is that of one test by
itself, `adjusted` is Holm's over all tests of the same family in the result (one for biases, one for variances, one for
comparisons); both are None where the answer is exact, which is no test and belongs to no family.

A bias that is not seen is not yet ruled out: a finding *holds* only where a bias of the size asked for, along G, would
have been seen with the power asked for; else it is *undecided*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from wtacrs.validation.records.base import Record, Result, ScoreKind, counted, counted_layers, register_result

Method = Literal["sampling", "enumeration"]
BiasVerdict = Literal["holds", "broken", "undecided", "biased, as declared", "accepted"]
Outcome = Literal["holds", "broken", "undecided"]

BIAS = 0.1
"""The bias along G to rule out, as a share of ‖G‖, unless another is asked for."""
POWER = 0.99


class BiasFinding(Record):
    """The bias on one layer, see `significance.MeanTest` for the numbers.

    A bias that is seen makes the verdict "broken" where the estimator claims to be unbiased, and "biased, as declared"
    where it does not. By enumeration `bias_squared` and `along` are exact, errors are None, and `rounding` decides.

    Files of before the three outcomes say "rejected", which is read as "broken", and "accepted", which is judged by
    their `detectable_along` against a tenth of ‖G‖; without that number it stays "accepted". That number was one of a
    single test, where it is now one of the whole family: such a file may say "holds" a little too early.

    Attributes:
        asked: the bias to rule out along G.
        power: probability of seeing a bias of `detectable`, or one of `detectable_along` along G, in the whole family.
        looks: how many times the draws were looked at; `p_value` is of all looks together.
    """

    table_derived: ClassVar[Sequence[str]] = ("bias", "needed")

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
    asked: float = BIAS
    power: float = POWER
    looks: int = 1
    verdict: BiasVerdict

    @model_validator(mode="before")
    @classmethod
    def _read_former(cls, given: Any) -> Any:
        """The verdicts of older files in today's words."""
        if not isinstance(given, dict):
            return given
        former, reach = given.get("verdict"), given.get("detectable_along")
        if former == "rejected":
            return given | {"verdict": "broken"}
        if former != "accepted" or (reach is None and given.get("method") != "enumeration"):
            return given
        return given | {"verdict": unseen(reach, given.get("asked", BIAS))}

    @property
    def needed(self) -> float | None:
        """How many times the draws it takes to rule out the bias asked for; None if rounding hides it or all is exact."""
        if self.detectable_along is None or self.rounding >= self.asked:
            return None
        if not math.isfinite(self.detectable_along):
            return None
        return ((self.detectable_along - self.rounding) / (self.asked - self.rounding)) ** 2

    @property
    def bias(self) -> float:
        """Estimated norm of the bias, 0 where its square is estimated below 0."""
        return math.sqrt(max(self.bias_squared, 0.0))


def unseen(reach: float | None, asked: float) -> Literal["holds", "undecided"]:
    """The verdict on a bias that was not seen: it holds if `reach`, from which on one would have been, is small enough.

    Args:
        reach: `detectable_along`; None where the bias is known exactly.
        asked: the bias to rule out.
    """
    return "holds" if reach is None or reach <= asked else "undecided"


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
    """All tests of one estimator on one layer.

    Attributes:
        draws: of the test of the mean, all stages together; 0 where nothing was drawn.
        first_draws: of its first stage, which the variance and the comparison are measured with; None in older files,
            where all draws are of one stage.
    """

    layer: str
    estimator: str
    unbiased: bool
    scores: ScoreKind
    n: int
    d: int
    m: int
    draws: int
    first_draws: int | None = None
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
    def headline(self) -> str:
        """The outcome, and the numbers of layers and estimators."""
        estimators = {test.estimator for test in self.tests}
        told = f"{counted_layers(test.layer for test in self.tests)} × {counted(len(estimators), 'estimator')}"
        return f"{self.outcome}, {told}"

    @property
    def broken(self) -> list[LayerTest]:
        """Where a claim was rejected: no bias, or the closed form of the variance."""
        return [
            test
            for test in self.tests
            if test.bias.verdict == "broken" or (test.variance and test.variance.verdict == "rejected")
        ]

    @property
    def undecided(self) -> list[LayerTest]:
        """Where no bias is claimed, none was seen, and one of the size asked for was not ruled out."""
        return [test for test in self.tests if test.unbiased and test.bias.verdict == "undecided"]

    @property
    def outcome(self) -> Outcome:
        """Broken if any claim is, else undecided if any is, else all hold."""
        if self.broken:
            return "broken"
        return "undecided" if self.undecided else "holds"
