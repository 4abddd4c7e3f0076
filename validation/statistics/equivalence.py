"""Is training with an estimator as good as exact training? Two one-sided tests on differences paired by seed.

A mean difference that is "not significant" says nothing: few seeds never are. Equivalence turns the question round. The
null hypothesis is that the expected difference is at least the margin away from zero; it is rejected at level α when both
one-sided t tests, against −margin and against +margin, reject at α, which is when the 1 − 2α interval lies inside the
margins (Schuirmann, "A comparison of the two one-sided tests procedure and the power approach", Journal of
Pharmacokinetics and Biopharmaceutics 15, 1987). Seeds are the units: the answer is about this dev set, over the
randomness of training.

Three seeds estimate the standard deviation of a difference poorly, and most verdicts are then "undecided". Where several
methods are trained from the same seeds they can estimate it together (`pooled_std`): a two-way layout, methods by
seeds, whose residuals are taken to vary alike. A method that varies more than the others is then judged too boldly, one
that varies less too timidly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
from scipy import stats

from wtacrs.estimators import InputError
from wtacrs.validation.records.experiment import Equivalence, EquivalenceVerdict
from wtacrs.validation.statistics.one_sample import holm

_POINTS = 2_000
"""Of the average over what the standard deviation may be estimated to be."""


class PooledStd(NamedTuple):
    """Standard deviation of one seed's difference between two methods, and the degrees of freedom it was found with."""

    deviation: float
    freedom: int


def pooled_std(runs: Sequence[Sequence[float]]) -> PooledStd:
    """From all methods together: residuals of the two-way layout without interaction.

    With L methods and n seeds the residual mean square, on (L − 1)(n − 1) degrees of freedom, estimates the variance of a
    run beyond the effects of its method and its seed; a difference has twice that variance (Scheffé, "The Analysis of
    Variance", Wiley 1959, chapter 4).

    Args:
        runs: metric by method and seed, `[L, n]` with L, n ≥ 2.

    Raises:
        InputError: on fewer, or if a method has other seeds.
    """
    if len(runs) < 2 or len({len(row) for row in runs}) != 1 or len(runs[0]) < 2:
        raise InputError(f"runs must be at least two methods of as many seeds, got {[len(row) for row in runs]}")
    table = np.array(runs, dtype=np.float64)
    residuals = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return PooledStd(float(np.sqrt(2.0 * np.square(residuals).sum() / freedom)), freedom)


class JudgedMean(NamedTuple):
    """The 1 − 2·level interval of a mean, and p-values of "it is the margin or more away from zero" and "it is zero"."""

    low: float
    high: float
    within: float
    different: float


def judge_mean(mean: float, error: float, freedom: int, *, margin: float, level: float) -> JudgedMean:
    """Two one-sided t tests of a mean against ± the margin, and the two-sided one against zero.

    Args:
        mean: that was found.
        error: its standard error; 0 leaves no doubt.
        freedom: degrees of freedom of the error.
        margin: > 0.
        level: of each one-sided test, in (0, ½).
    """
    half = float(stats.t.isf(level, freedom)) * error
    within = max(_above(mean + margin, error, freedom), _above(margin - mean, error, freedom))
    different = min(2 * _above(abs(mean), error, freedom), 1.0)
    return JudgedMean(mean - half, mean + half, within, different)


def check_margin(margin: float, level: float) -> None:
    """Refuse an unusable margin or level.

    Raises:
        InputError: unless margin is a positive number and level in (0, ½).
    """
    if not margin > 0 or not math.isfinite(margin):
        raise InputError(f"margin={margin!r} must be a positive number")
    if not 0 < level < 0.5:
        raise InputError(f"level={level!r} must be in (0, 0.5)")


def paired_equivalence(
    values: Sequence[float],
    exact: Sequence[float],
    *,
    margin: float,
    level: float = 0.05,
    std: PooledStd | None = None,
) -> Equivalence:
    """Two one-sided t tests on `values − exact`, seed by seed.

    Args:
        values: metric of the runs with an estimator.
        exact: metric of the exact runs with the same seeds, in the same order.
        margin: > 0, in the unit of the metric; a difference smaller than this is of no consequence.
        level: of each test, in (0, ½).
        std: of the differences, from elsewhere; None to estimate it from these differences alone.

    Raises:
        InputError: on an unusable margin or level, and on fewer than two pairs.
    """
    if len(values) != len(exact) or len(values) < 2:
        raise InputError(f"values and exact must be at least two pairs, got {len(values)} and {len(exact)}")
    check_margin(margin, level)
    differences = [a - b for a, b in zip(values, exact, strict=True)]
    deviation, freedom = std or PooledStd(stdev(differences), len(differences) - 1)
    mean, error = fmean(differences), deviation / math.sqrt(len(differences))
    found = judge_mean(mean, error, freedom, margin=margin, level=level)
    return Equivalence(
        difference=mean,
        error=error,
        low=found.low,
        high=found.high,
        equivalent=found.within,
        different=found.different,
        seeds=len(differences),
        freedom=freedom,
        margin=margin,
        level=level,
        verdict=_verdict(found.within, found.different, mean, level),
    )


def power(seeds: int, error: float, *, margin: float, level: float = 0.05, methods: int = 2) -> float:
    """Probability that the two one-sided tests show equivalence where the expected difference is zero.

    Given the estimated standard deviation s of a difference, the mean of n differences must lie within
    margin − t s/√n; its own distribution is normal with the true σ, and ν s²/σ² is χ² with ν degrees of freedom, over
    which this is averaged.

    Args:
        seeds: n ≥ 2, pairs of runs.
        error: σ, the standard deviation of one difference.
        margin: > 0.
        level: of each one-sided test.
        methods: L that the standard deviation is estimated from, ν = (L − 1)(n − 1): 2 for a pair alone.
    """
    if error == 0.0:
        return 1.0
    freedom = (methods - 1) * (seeds - 1)
    root = math.sqrt(seeds)
    quantiles = stats.chi2.ppf((np.arange(_POINTS) + 0.5) / _POINTS, freedom)
    half = stats.t.isf(level, freedom) * error * np.sqrt(quantiles / freedom) / root
    inside = np.maximum(margin - half, 0.0) * root / error
    return float(np.mean(2.0 * stats.norm.cdf(inside) - 1.0))


def seeds_needed(
    error: float,
    *,
    margin: float,
    level: float = 0.05,
    methods: int = 2,
    wanted: float = 0.8,
    most: int = 10_000,
) -> int | None:
    """Fewest seeds with which a method that is as good as exact would be shown to be; None if more than `most`.

    Args:
        error: standard deviation of one difference, as `power` takes it.
        margin: > 0.
        level: of each one-sided test.
        methods: as in `power`.
        wanted: the probability of showing it.
        most: where the search ends.
    """
    enough = partial(power, error=error, margin=margin, level=level, methods=methods)
    if enough(most) < wanted:
        return None
    low, high = 1, most  # the power grows with the seeds
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle) >= wanted:
            high = middle
        else:
            low = middle
    return high


def adjusted(found: Sequence[Equivalence]) -> list[Equivalence]:
    """The same with Holm's p-values, one family for equivalence and one for difference, and the verdicts that follow."""
    equivalent = holm(np.array([one.equivalent for one in found])).tolist()
    different = holm(np.array([one.different for one in found])).tolist()
    return [
        one.model_copy(
            update={"equivalent": e, "different": d, "verdict": _verdict(e, d, one.difference, one.level)}
        )
        for one, e, d in zip(found, equivalent, different, strict=True)
    ]


def nothing_learned(exact: Sequence[float], majority: float) -> bool:
    """Whether exact training, over its seeds, is not clearly better than what always answering one class scores."""
    error = stdev(exact) / len(exact) ** 0.5 if len(exact) > 1 else 0.0
    return fmean(exact) - 2.0 * error <= majority


def without_verdict(found: Equivalence) -> Equivalence:
    """The same where exact training learned nothing: being equivalent to it says nothing of a method."""
    return found.model_copy(update={"verdict": "nothing learned"})


def _above(distance: float, error: float, freedom: int) -> float:
    """p of "the mean lies `distance` below what was seen"; runs that do not vary leave no doubt."""
    if error == 0.0:
        return 0.0 if distance > 0 else 1.0
    return float(stats.t.sf(distance / error, freedom))


def _verdict(equivalent: float, different: float, mean: float, level: float) -> EquivalenceVerdict:
    if equivalent <= level:
        return "equivalent"
    if different <= level:
        return "worse" if mean < 0 else "better"
    return "undecided"


def nothing_learned_warning(exact: Sequence[float], majority: float) -> str:
    """A sentence of warning where exact training learned nothing that could be spoilt; else nothing."""
    if not nothing_learned(exact, majority):
        return ""
    return "exact training is not clearly better than the most frequent class: nothing follows for the estimators"
