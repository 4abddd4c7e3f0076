"""Tests of an estimator's mean and variance: sample size and level are fixed beforehand, one look at the data.

The tests are asymptotic (averages of many independent draws, corrected for their skewness, see
`wtacrs.validation.statistics.one_sample`). What is so rare that it never happens in the sample cannot be seen by any of
them; where `enumerate_moments` applies it is exact and needs no level at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from scipy import optimize, stats
from torch import Tensor

from wtacrs.estimators import Estimator, InputError, joint_norms
from wtacrs.estimators.core.checks import check_rows_agree
from wtacrs.validation.statistics.monte_carlo import estimates
from wtacrs.validation.statistics.one_sample import (
    alike_and_off,
    check_sample,
    doubted,
    holm,
    least_shift,
    noncentrality,
    one_sample,
)
from wtacrs.validation.statistics.streaming import PairDifferences, SplitDraws

__all__ = [
    "MeanTest",
    "ProjectionTest",
    "VarianceTest",
    "holm",
    "mean_test",
    "mean_test_from_projections",
    "mean_verdict",
    "min_detectable_bias",
    "rounding_error",
    "rounding_variance",
    "variance_test",
    "variance_verdict",
]

POWER = 0.99
# two draws of the pilot's half and of the other one: one product of differences, one degree of freedom
LEAST_DRAWS = 4


class MeanTest(NamedTuple):
    """Outcome of a test of "the mean is the target", see `mean_test`. Biases are relative to the norm of the target.

    Attributes:
        p_value: of both tests together: the smaller of the two Holm-adjusted ones.
        rejected: `p_value ≤ level`.
        level: probability of rejecting a true mean.
        draws: sample size.
        any_p_value: one-sided, against a bias in any direction, before the adjustment.
        along_p_value: two-sided, against a bias along the target, before the adjustment; None if the target is zero.
        bias_squared: unbiased estimate of the squared norm of the bias; may be negative.
        bias_squared_error: its standard error, up to two thirds too large where there is no bias.
        along: estimated bias along the target, signed: −0.1 says that the mean is a tenth too short.
        along_error: its standard error; both are 0 if the target is zero.
        detectable: a bias of at least this norm, in whatever direction, is rejected with 99 % power.
        detectable_along: one of at least this size along the target is; infinite if the target is zero.
    """

    p_value: float
    rejected: bool
    level: float
    draws: int
    any_p_value: float
    along_p_value: float | None
    bias_squared: float
    bias_squared_error: float
    along: float
    along_error: float
    detectable: float
    detectable_along: float

    @property
    def bias(self) -> float:
        """Estimated norm of the bias: the root of `bias_squared` where that is positive, else 0."""
        return math.sqrt(max(self.bias_squared, 0.0))


class ProjectionTest(NamedTuple):
    """Outcome of a test of "every mean is zero" on projections, in their unit.

    Attributes:
        p_value: of the whole family, corrected for the number of columns.
        statistic: the largest |t|.
        rejected: `p_value ≤ level`.
        level: probability of a false rejection of the family.
        draws: sample size.
        effect: the mean of the column of `statistic`.
        detectable: a mean of at least this size in any one column is detected with 99 % power.
        p_values: per column, Holm-adjusted: those ≤ level are rejected.
        effects: mean per column.
        detectables: smallest mean detected with 99 % power, per column.
    """

    p_value: float
    statistic: float
    rejected: bool
    level: float
    draws: int
    effect: float
    detectable: float
    p_values: tuple[float, ...]
    effects: tuple[float, ...]
    detectables: tuple[float, ...]


class VarianceTest(NamedTuple):
    """Outcome of a test of "the total variance is what the closed form says".

    `measured` and `error` (its standard error) come from the draws, `stated` from the closed form; `statistic` is
    their difference in standard errors, corrected for skewness. A variance that differs from the stated one by
    `detectable`, as a share of it, is rejected with 99 % power.
    """

    p_value: float
    statistic: float
    rejected: bool
    level: float
    draws: int
    measured: float
    error: float
    stated: float
    detectable: float


@torch.no_grad()
def mean_test(
    estimator: Estimator,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    *,
    draws: int,
    level: float,
    target: Float[Tensor, "m d"] | None = None,
    scores: Shaped[Tensor, " n"] | None = None,
    generator: torch.Generator | None = None,
) -> MeanTest:
    """Test `E Ĝ = target` against a bias in any direction, in memory O(m·d + draws) at every size of dW.

    Two tests at half the level each (Holm):

    *Any direction, by splitting the sample.* The first T₁ = ⌊T/2⌋ draws, the pilot, give a direction: that of their mean
    error, u = β̂/‖β̂‖ with β̂ = mean − target. The other T₂ draws are projected on it. Given the pilot, the numbers
    z_t = ⟨Ĝ_t − target, u⟩ are i.i.d. with mean ⟨β, u⟩ for the true bias β: zero if there is none, so a one-sided t test
    keeps its level, whatever the dimension, the spectrum of Σ and the dependence of the entries of Ĝ. If there is a bias,
    u points its way: ⟨β, β̂⟩ has the mean b² = ‖β‖² and Var(z_t ‖β̂‖) = β̂ᵀΣβ̂ the mean βᵀΣβ + tr Σ²/T₁, so the statistic
    is about

        δ = √T₂ b² / √(βᵀΣβ + tr Σ²/T₁).

    A fixed direction in D dimensions sees b/√D of the bias; here the noise of the direction costs tr Σ² only, and the
    test compares b² with √tr Σ²/T, as the test that knew Σ would.

    *Along the target.* A two-sided t test of ⟨Ĝ_t − target, target⟩ over all draws, for a wrong scale such as k/n.

    `detectable` puts βᵀΣβ ≤ b² √tr Σ² (the largest eigenvalue is at most the root of the sum of squares), a high
    estimate of tr Σ², and δ = c + 2.33 widened for the t distribution (`one_sample.noncentrality`), where c is the
    critical value at level/2. The bound is attained where Σ has one direction and the bias shares it: there u is ±β/b, of
    the right sign nearly always, and all of δ is left. `tests/validation/statistics/test_mean_test.py` computes the power
    for many spectra. `detectable_along` is the shift that the test along the target sees on either side, skewed as the
    sample is (`one_sample.least_shift`).

    The null hypothesis is widened by the rounding of the estimate's own dtype: a bias of norm at most
    `rounding_error(x, dy)` is none.

    Args:
        estimator: any estimator.
        x: input rows.
        dy: output gradients.
        draws: sample size ≥ 4, fixed beforehand.
        level: probability in (0, 1) of rejecting a true mean.
        target: the claimed mean; the exact product in fp64 if None.
        scores: as in `Estimator.compress`.
        generator: source of the draws.

    Raises:
        InputError: on an unusable level, sample size or target, or draws that are not finite.
    """
    check_rows_agree(x, dy)
    target = dy.double().T @ x.double() if target is None else target.double()
    if target.shape != (dy.shape[1], x.shape[1]):
        raise InputError(f"target must have shape {[dy.shape[1], x.shape[1]]}, got {list(target.shape)}")
    check_sample(draws, level, LEAST_DRAWS)
    unit = float(target.norm()) or float(joint_norms(x, dy).sum()) or 1.0
    stream = SplitDraws(target, draws)
    for estimate in estimates(estimator, x, dy, draws, scores, generator):
        stream.add(estimate)
    fixed = estimator.traits.deterministic
    return mean_verdict(stream, level, unit=unit, rounding=rounding_error(x, dy), deterministic=fixed)


def mean_verdict(
    stream: SplitDraws,
    level: float,
    *,
    unit: float,
    rounding: float,
    deterministic: bool = False,
    power: float = POWER,
    rarest: float = 0.0,
) -> MeanTest:
    """The verdict of `mean_test` on draws already taken.

    Args:
        stream: all its draws have been taken in.
        level: as in `mean_test`.
        unit: norm that biases are expressed in.
        rounding: norm of a bias that still counts as none.
        deterministic: the draws are known to be equal.
        power: of `detectable` and `detectable_along`.
        rarest: an event of smaller probability per draw may never happen in the sample: T numbers that are all alike and
            off have p ≥ (1 − rarest)^T, and rule out nothing.
    """
    along, split = stream.along, stream.split
    anywhere = doubted(
        one_sample(split, rounding=rounding, side="greater", deterministic=deterministic), len(split), rarest
    )
    on_target = None
    if along:
        on_target = doubted(one_sample(along, rounding=rounding, deterministic=deterministic), len(along), rarest)
    raw = [anywhere.p_value] if on_target is None else [anywhere.p_value, on_target.p_value]
    p_value = float(holm(np.array(raw)).min())
    share = level / len(raw)
    draws = stream.pilot + len(split)
    spectrum, doubt = stream.pairs.squared_spectrum
    # β̂ᵀΣβ̂ has the mean βᵀΣβ + tr Σ²/T₁
    bias_along = max(len(split) * (anywhere.error * stream.pilot_bias) ** 2 - spectrum / stream.pilot, 0.0)
    squares = stream.pairs.squares
    detectable = min_detectable_bias(
        share,
        draws,
        std=math.sqrt(spectrum + doubt),
        variance=math.fsum(squares) / len(squares),
        rounding=rounding,
        power=power,
    )
    if rarest and alike_and_off(anywhere):
        detectable = math.inf
    reachable = math.inf
    if on_target is not None and not (rarest and alike_and_off(on_target)):
        reachable = rounding + least_shift(on_target, share, draws, power)
    return MeanTest(
        p_value=p_value,
        rejected=p_value <= level,
        level=level,
        draws=draws,
        any_p_value=anywhere.p_value,
        along_p_value=None if on_target is None else on_target.p_value,
        bias_squared=stream.bias_squared / unit**2,
        bias_squared_error=math.sqrt(4 * bias_along / draws + 2 * spectrum / (draws * (draws - 1))) / unit**2,
        along=0.0 if on_target is None else on_target.mean / unit,
        along_error=0.0 if on_target is None else on_target.error / unit,
        detectable=detectable / unit,
        detectable_along=reachable / unit,
    )


def min_detectable_bias(
    level: float,
    draws: int,
    *,
    std: float,
    variance: float = 0.0,
    rounding: float = 0.0,
    power: float = POWER,
) -> float:
    """The norm b of the smallest bias, in whatever direction, that the test by splitting rejects with this power.

    It solves b² − rounding ‖β̂‖ = δ √(b² s + s²/T₁) / √T₂ with ‖β̂‖² = b² + tr Σ/T₁, see `mean_test`.

    Args:
        level: of this test by itself.
        draws: of both halves.
        std: s = √tr Σ².
        variance: tr Σ; it matters only beside a rounding.
        rounding: norm of a bias that still counts as none.
        power: probability of rejecting it.
    """
    pilot, rest = draws // 2, draws - draws // 2
    if not math.isfinite(std):
        return math.inf
    if std == 0.0:
        return rounding
    wanted = noncentrality(level, rest, power)

    given = (std, variance, rounding, pilot, rest, wanted)
    high = max(rounding, math.sqrt(std), math.sqrt(variance))
    while _surplus(high, *given) <= 0:
        high *= 2
    return float(optimize.brentq(_surplus, 0.0, high, args=given, xtol=1e-9 * high))


def _surplus(
    b: float, std: float, variance: float, rounding: float, pilot: int, rest: int, wanted: float
) -> float:
    """Left side less right side of the equation of `min_detectable_bias`."""
    deviation = math.sqrt(b * b * std + std * std / pilot)
    return b * b - rounding * math.sqrt(b * b + variance / pilot) - wanted * deviation / math.sqrt(rest)


def rounding_error(x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"]) -> float:
    """A generous bound of the norm of an estimate's rounding error: 4ε Σ‖x_i‖‖y_i‖ with the ε of its dtype."""
    working = torch.finfo(torch.promote_types(x.dtype, dy.dtype)).eps
    return 4 * working * float(joint_norms(x, dy).sum())


def mean_test_from_projections(
    projections: Float[Tensor, "draws r"], level: float, *, rounding: float = 0.0
) -> ProjectionTest:
    """Test that every column has mean zero: one-sample t per column, corrected over all columns (Holm).

    For a whole model, put the projections of all layers side by side: column j of draw t is
    `⟨Ĝ_t − target, direction_j⟩` of one layer.

    Args:
        projections: independent rows, one per draw; at least 3.
        level: probability in (0, 1) of rejecting any column when all means are zero.
        rounding: a mean of at most this size counts as zero, in the unit of the projections. A column that does
            not vary is rejected (p = 0) exactly when its mean is larger.

    Raises:
        InputError: on an unusable level, shape, or values that are not finite.
    """
    if projections.ndim != 2 or projections.shape[1] < 1:
        raise InputError(f"projections must have shape [draws, r] with r ≥ 1, got {list(projections.shape)}")
    draws, columns = projections.shape
    check_sample(draws, level, 3)
    sample = projections.detach().double().cpu().numpy()
    if not np.isfinite(sample).all():
        raise InputError("projections must be finite: an estimate or a target holds NaN or infinite values")
    mean = sample.mean(axis=0)
    error = sample.std(axis=0, ddof=1) / math.sqrt(draws)
    # what the summation itself may leave of a constant column
    error = np.where(error <= 1e-15 * np.abs(mean), 0.0, error)
    excess = np.maximum(np.abs(mean) - rounding, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(excess > 0, excess / error, 0.0)
    p_values = holm(2 * stats.t.sf(statistic, draws - 1))
    # the first step of Holm is Bonferroni's: reaching it there is enough for any one column
    detectables = rounding + noncentrality(level / columns, draws, POWER, sides=2) * error
    worst = int(statistic.argmax())
    return ProjectionTest(
        p_value=float(p_values.min()),
        statistic=float(statistic[worst]),
        rejected=bool(p_values.min() <= level),
        level=level,
        draws=draws,
        effect=float(mean[worst]),
        detectable=float(detectables.max()),
        p_values=tuple(p_values.tolist()),
        effects=tuple(mean.tolist()),
        detectables=tuple(detectables.tolist()),
    )


@torch.no_grad()
def variance_test(
    estimator: Estimator,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    *,
    draws: int,
    level: float,
    scores: Shaped[Tensor, " n"] | None = None,
    generator: torch.Generator | None = None,
) -> VarianceTest:
    """Compare the measured total variance with `estimator.variance`.

    Measured are `½‖Ĝ_{2s−1} − Ĝ_{2s}‖²`: i.i.d., unbiased for the variance whatever the mean is, and tested by a t test
    corrected for their skewness. Against the sample variance about the mean this doubles the share of the error that
    stems from tr Σ², and leaves the share of the fourth cumulants; in return the numbers are exactly independent.

    Args:
        estimator: one with a closed form for its variance.
        x: input rows.
        dy: output gradients.
        draws: sample size ≥ 4, fixed beforehand; a last odd one is not used.
        level: probability in (0, 1) of rejecting a true closed form.
        scores: as in `Estimator.compress`.
        generator: source of the draws.

    Raises:
        InputError: on an unusable level or sample size, or draws that are not finite.
        NoClosedForm: if the estimator has no closed form.
    """
    check_sample(draws, level, LEAST_DRAWS)
    stated = float(estimator.variance(x, dy, scores=scores))
    pairs = PairDifferences()
    for estimate in estimates(estimator, x, dy, draws, scores, generator):
        pairs.add(estimate)
    return variance_verdict(pairs.squares, stated, level, rounding=rounding_variance(x, dy))


def variance_verdict(
    squares: Sequence[float], stated: float, level: float, *, rounding: float, unit: float = 1.0
) -> VarianceTest:
    """The verdict of `variance_test` on pairs already drawn; moments are divided by `unit`."""
    found = one_sample(squares, stated, rounding=rounding)
    smallest = rounding + noncentrality(level, len(squares), POWER, sides=2) * found.error
    return VarianceTest(
        p_value=found.p_value,
        statistic=found.statistic,
        rejected=found.p_value <= level,
        level=level,
        draws=2 * len(squares),
        measured=found.mean / unit,
        error=found.error / unit,
        stated=stated / unit,
        detectable=smallest / stated if stated > 0 else math.inf,
    )


def rounding_variance(x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"]) -> float:
    """How far a measured variance may be off a closed form by rounding alone.

    The draws are rounded in their dtype. A closed form is a difference of terms up to (Σ‖x_i‖‖y_i‖)², so that what ought
    to be zero comes out as their rounding error in fp64; and below fp64 the norms in it are found in fp32, which leaves
    a share of E‖Ĝ‖², of which the part of the variance is lost in its standard error.
    """
    found = rounding_error(x, dy) ** 2 + 64 * torch.finfo(torch.float64).eps * float(joint_norms(x, dy).sum()) ** 2
    if torch.promote_types(x.dtype, dy.dtype) != torch.float64:
        exact = dy.double().T @ x.double()
        found += 8 * torch.finfo(torch.float32).eps * float(exact.square().sum())
    return found
