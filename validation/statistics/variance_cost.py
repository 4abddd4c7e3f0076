"""What the variance of estimated gradients costs in the metric, and the budget at which the loss comes to a margin.

The model: a run with seed s at a budget of relative variance v ends at α_s − a·v + ε, the exact run, v = 0, among
them. So the expected difference from exact training is −a·v, a line through zero.

**Slope.** Differences of one seed share the error of its exact run. Least squares with a free level α_s for every seed,

    a_s = −Σ (v − v̄)·y / Σ (v − v̄)²    over the budgets of the seed and its exact run,

is generalised least squares of the differences with those common errors, and the best linear unbiased estimate where
errors of runs are independent and alike. *Proof.* Differences d = y − y₀ have the covariance σ²(I + 11ᵀ), whose inverse
is (I − 11ᵀ/(K + 1))/σ²; vᵀ(I − 11ᵀ/(K + 1))v = Σ v² − (Σ v)²/(K + 1) = Σ (v − v̄)² over the K + 1 runs, as v = 0 for the
exact one, and likewise for vᵀ(…)d. ∎ Ordinary least squares of the differences through zero is unbiased too, with 2.5
times the variance where v is 1/k of seven budgets from 0.05 to 0.5.

**Interval.** The slopes a_s of different seeds are independent and alike distributed, whatever the errors of one seed
have in common and however they grow with the variance; Student's t over them is exact where runs are normal. Residuals of
all runs together have many more degrees of freedom, but take all runs to vary alike: where the standard deviation of
a run is twice as large at the smallest of seven budgets, their 95 % interval holds the slope in 81 % of the cases with
four seeds (20,000 simulated), and Student's in 95 %.

**Threshold.** Relative variance falls with the budget k. Between measured budgets log v is taken to be linear in log k,
which is exact for powers of k. The threshold is the least budget from which on v stays at or below margin / a; the ends
of the interval of a, put in the place of a, are those of its interval, since it rises with a.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float64
from scipy import stats

from wtacrs.estimators import InputError
from wtacrs.validation.records.budgets import BudgetLimit, BudgetRange, VarianceCost
from wtacrs.validation.records.noise import NoiseRatio
from wtacrs.validation.statistics.equivalence import check_margin

Budget = int | float


def slopes_by_seed(
    exact: Sequence[float], estimated: Mapping[Budget, Sequence[float]], variances: Mapping[Budget, float]
) -> Float64[np.ndarray, " seeds"]:
    """a_s of every seed.

    Args:
        exact: metric of exact training by seed.
        estimated: metric by budget and seed, in the order of `exact`.
        variances: relative variance by budget.

    Raises:
        InputError: on other seeds or budgets, no seed, variances below 0 or not finite, or all of them 0.
    """
    if not exact or not estimated or any(len(runs) != len(exact) for runs in estimated.values()):
        counts = [len(runs) for runs in estimated.values()]
        raise InputError(f"estimated must hold as many runs as exact at every budget: {counts}, not {len(exact)}")
    missing = [budget for budget in estimated if budget not in variances]
    if missing:
        raise InputError(f"variances: there is none for budget {missing[0]}")
    v = np.array([0.0, *(variances[budget] for budget in estimated)])
    if not np.isfinite(v).all() or (v < 0).any() or not (v > 0).any():
        raise InputError(f"variances={v[1:].tolist()} must be finite, from 0, and not all 0")
    runs = np.array([exact, *estimated.values()], dtype=np.float64)
    centred = v - v.mean()
    found: Float64[np.ndarray, " seeds"] = -(centred @ runs) / np.square(centred).sum()
    return found


def variance_cost(
    exact: Sequence[float],
    estimated: Mapping[Budget, Sequence[float]],
    variances: Mapping[Budget, float],
    *,
    margin: float,
    level: float = 0.95,
    scores: str = "row-norms",
) -> VarianceCost:
    """The slope with its interval, and the budget at which the loss is the margin.

    Args:
        exact: metric of exact training by seed, two seeds or more.
        estimated: metric by budget and seed, in the order of `exact`.
        variances: relative variance by budget.
        margin: > 0, of the metric.
        level: of the interval, in (0, 1).
        scores: whose variances they are.

    Raises:
        InputError: as `slopes_by_seed`; on one seed, an unusable margin or an unusable level.
    """
    if not 0 < level < 1:
        raise InputError(f"level={level!r} must be in (0, 1)")
    check_margin(margin, (1 - level) / 2)
    slopes = slopes_by_seed(exact, estimated, variances)
    if len(slopes) < 2:
        raise InputError("exact: two seeds or more are needed for an interval")
    slope, error = float(slopes.mean()), float(slopes.std(ddof=1)) / math.sqrt(len(slopes))
    half = float(stats.t.ppf((1 + level) / 2, len(slopes) - 1)) * error
    low, high = slope - half, slope + half
    curve = {budget: variances[budget] for budget in estimated}
    least = BudgetLimit(budget=min(curve), side="below")
    harmless = falls_to(curve, margin / high) if high > 0 else least
    threshold = None
    if low > 0:
        value, lower = (falls_to(curve, margin / a) for a in (slope, low))
        threshold = BudgetRange(value=value, low=lower, high=harmless)
    return VarianceCost(
        scores=scores,
        slope=slope,
        error=error,
        low=low,
        high=high,
        level=level,
        margin=margin,
        seeds=len(slopes),
        threshold=threshold,
        harmless=harmless,
    )


def falls_to(curve: Mapping[Budget, float], level: float) -> BudgetLimit:
    """The least budget from which on a curve stays at or below a level, by lines between its logarithms.

    Where the curve falls to 0 between two budgets, it is taken to do so at the larger one.

    Args:
        curve: values ≥ 0 by budget.
        level: > 0.

    >>> str(falls_to({0.1: 9.0, 0.4: 1.0}, 3.0)), str(falls_to({0.1: 9.0, 0.4: 1.0}, 20.0))
    ('0.2', 'below 0.1')

    Raises:
        InputError: on no budget, budgets from 0, values below 0, or a level that is not positive.
    """
    budgets = sorted(curve)
    if not budgets or budgets[0] <= 0 or not all(curve[b] >= 0 for b in budgets) or not level > 0:
        raise InputError(f"curve={dict(curve)}, level={level}: budgets and level must be positive, values from 0")
    if curve[budgets[-1]] > level:
        return BudgetLimit(budget=budgets[-1], side="above")
    for small, large in reversed(list(pairwise(budgets))):
        if curve[small] > level:
            return BudgetLimit(budget=_crossing(small, curve[small], large, curve[large], level))
    return BudgetLimit(budget=budgets[0], side="at" if curve[budgets[0]] == level else "below")


def _crossing(small: Budget, above: float, large: Budget, below: float, level: float) -> float:
    if below == 0.0 or math.isinf(above):
        return float(large)
    part = math.log(above / level) / math.log(above / below)
    return float(math.exp(math.log(small) + part * math.log(large / small)))


def noise_threshold(ratios: Mapping[Budget, NoiseRatio], level: float = 1.0) -> BudgetRange:
    """The budget at which a ratio of variances falls to a level, 1 where both are alike.

    Its ends are where the ends of the ratios' intervals fall to it; None where a ratio has none.

    Args:
        ratios: by budget.
        level: > 0.

    Raises:
        InputError: as `falls_to`.
    """
    ends = []
    for end in ("low", "high"):
        curve = {budget: getattr(ratio, end) for budget, ratio in ratios.items()}
        ends.append(None if None in curve.values() else falls_to(curve, level))
    value = falls_to({budget: ratio.value for budget, ratio in ratios.items()}, level)
    return BudgetRange(value=value, low=ends[0], high=ends[1])
