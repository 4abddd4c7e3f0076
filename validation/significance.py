"""Tests of an estimator's mean and variance: sample size and level are fixed beforehand, one look at the data.

The tests are asymptotic (Student's t and normal tails for averages of many independent draws). At extreme levels
the sample must be large against the skewness of the draws; where `enumerate_moments` applies it is exact and needs
no level at all.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from scipy import stats
from torch import Tensor

from wtacrs.estimators import Estimator, InputError, joint_norms
from wtacrs.estimators.scores import check_rows_agree
from wtacrs.validation.monte_carlo import estimates, monte_carlo

POWER = 0.99

# directions must not depend on the draws: a stream of their own, whatever the caller's generator is
_DIRECTION_SEED = 0x0D1EC7104


class MeanTest(NamedTuple):
    """Outcome of a test of "the mean is the target" along several fixed directions.

    Attributes:
        p_value: of the whole family, corrected for the number of directions.
        statistic: the largest |t|.
        rejected: `p_value ≤ level`.
        level: probability of a false rejection of the family.
        draws: sample size.
        effect: the estimated bias along the direction of `statistic`, signed.
        detectable: a bias of at least this size along any one direction is detected with 99 % power.
        p_values: per direction, Holm-adjusted: those ≤ level are rejected.
        effects: estimated bias per direction.
        detectables: smallest bias detected with 99 % power, per direction.

    Biases are relative to the norm of the target in `mean_test`, in the unit of the projections in
    `mean_test_from_projections`.
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

    `measured` and `error` (its standard error) come from the draws, `stated` from the closed form; `statistic`
    is their difference in standard errors.
    """

    p_value: float
    statistic: float
    rejected: bool
    level: float
    draws: int
    measured: float
    error: float
    stated: float


@torch.no_grad()
def mean_test(
    estimator: Estimator,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    *,
    draws: int,
    level: float,
    target: Float[Tensor, "m d"] | None = None,
    directions: int = 8,
    scores: Shaped[Tensor, " n"] | None = None,
    generator: torch.Generator | None = None,
) -> MeanTest:
    """Test `E Ĝ = target` by projecting the draws on the target's direction and on random directions.

    Memory O(directions · m · d + draws · directions). The null hypothesis allows for the rounding of the
    estimate's own dtype.

    Args:
        estimator: any estimator.
        x: input rows.
        dy: output gradients.
        draws: sample size ≥ 3, fixed beforehand.
        level: probability in (0, 1) of rejecting a true mean.
        target: the claimed mean; the exact product in fp64 if None.
        directions: number of random directions ≥ 0 besides that of the target.
        scores: as in `Estimator.compress`.
        generator: source of the draws.

    Raises:
        InputError: on an unusable level, sample size, number of directions or target.
    """
    check_rows_agree(x, dy)
    target = dy.double().T @ x.double() if target is None else target.double()
    if target.shape != (dy.shape[1], x.shape[1]):
        raise InputError(f"target must have shape {[dy.shape[1], x.shape[1]]}, got {list(target.shape)}")
    if directions < 0:
        raise InputError(f"directions={directions!r} must be an integer ≥ 0")
    _check_sample(draws, level)
    probes = _directions(target, directions)
    scale = float(target.norm()) or float(joint_norms(x, dy).sum()) or 1.0
    claimed = probes @ target.flatten()
    samples = [
        probes @ estimate.flatten() - claimed for estimate in estimates(estimator, x, dy, draws, scores, generator)
    ]
    working = torch.finfo(torch.promote_types(x.dtype, dy.dtype)).eps
    rounding = 4 * working * float(joint_norms(x, dy).sum()) / scale
    return mean_test_from_projections(torch.stack(samples) / scale, level, rounding=rounding)


def mean_test_from_projections(
    projections: Float[Tensor, "draws r"], level: float, *, rounding: float = 0.0
) -> MeanTest:
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
    _check_sample(draws, level)
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
    reach = stats.t.isf(level / (2 * columns), draws - 1) + stats.norm.isf(1 - POWER)
    detectables = rounding + reach * error
    worst = int(statistic.argmax())
    return MeanTest(
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


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment: rejecting the adjusted values ≤ level keeps the family's error below level."""
    order = np.argsort(p_values, kind="stable")
    stepped = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted


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
    """Compare the measured total variance with `estimator.variance`; asymptotic (normal) in the number of draws.

    The standard error comes from the fourth moments of the draws, so heavy-tailed draws need a large sample.

    Args:
        estimator: one with a closed form for its variance.
        x: input rows.
        dy: output gradients.
        draws: sample size ≥ 3, fixed beforehand.
        level: probability in (0, 1) of rejecting a true closed form.
        scores: as in `Estimator.compress`.
        generator: source of the draws.

    Raises:
        InputError: on an unusable level or sample size.
        NoClosedForm: if the estimator has no closed form.
    """
    _check_sample(draws, level)
    stated = float(estimator.variance(x, dy, scores=scores))
    moments = monte_carlo(estimator, x, dy, draws=draws, scores=scores, generator=generator)
    size = float(joint_norms(x, dy).sum())
    rounding = (4 * torch.finfo(torch.promote_types(x.dtype, dy.dtype)).eps * size) ** 2
    excess = max(abs(moments.variance - stated) - rounding, 0.0)
    statistic = 0.0 if excess == 0.0 else excess / moments.variance_error if moments.variance_error else math.inf
    p_value = float(2 * stats.norm.sf(statistic))
    return VarianceTest(
        p_value=p_value,
        statistic=statistic,
        rejected=p_value <= level,
        level=level,
        draws=draws,
        measured=moments.variance,
        error=moments.variance_error,
        stated=stated,
    )


def _check_sample(draws: int, level: float) -> None:
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 3:
        raise InputError(f"draws={draws!r} must be an integer ≥ 3")
    if not 0.0 < level < 1.0:
        raise InputError(f"level={level!r} must be a probability in (0, 1)")


def _directions(target: Float64[Tensor, "m d"], count: int) -> Float64[Tensor, "r size"]:
    """Unit vectors: the target's direction (unless it is zero) and random ones from a stream of their own."""
    stream = torch.Generator().manual_seed(_DIRECTION_SEED)
    probes = torch.randn(count, target.numel(), dtype=torch.float64, generator=stream).to(target.device)
    if float(target.norm()) > 0:
        probes = torch.cat([target.flatten().unsqueeze(0), probes])
    if probes.shape[0] == 0:
        raise InputError("directions=0 needs a target other than zero: there is nothing to project on")
    return probes / probes.norm(dim=1, keepdim=True)
