"""One mean, tested: Student's t with Hall's correction for skewness, and Holm's correction for many tests.

The averages of this package are of squares, or of projections of draws of which a few rows weigh much: skewed
numbers, for which Student's t rejects far too often on one side. With n = 200 squares of a normal variable a
one-sided test at level 0.001 rejects a true mean six times too often, and at 0.0001 sixteen times; corrected, 1.3
and 1.8 times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from wtacrs.estimators import InputError

# what the summation itself may leave of numbers that are all equal
_CONSTANT = 1e-13


class OneSample(NamedTuple):
    """A tested mean: `error` is its standard error, `statistic` the corrected t, `p_value` of the asked side.

    `skewness` is that of the sample, 0 for numbers that are all alike.
    """

    mean: float
    error: float
    statistic: float
    p_value: float
    skewness: float = 0.0


def one_sample(
    values: Sequence[float] | np.ndarray,
    null: float = 0.0,
    *,
    rounding: float = 0.0,
    side: Literal["two", "greater"] = "two",
    deterministic: bool = False,
) -> OneSample:
    """Test that independent numbers have the mean `null`.

    With S = (mean − null) / s, where s is the standard deviation, and with the sample skewness γ, the statistic is
    √n (S + γ S²/3 + γ² S³/27 + γ/(6n)) (Hall 1992, "On the removal of skewness by transformation"): increasing in S,
    and normal up to O(1/n) where the plain t is off by O(1/√n). It is compared with Student's t of n − 1 degrees,
    which is what it is for numbers without skewness.

    No p-value is below the smallest of a sign test, 2^−n for one side: that n numbers all lie on one side of `null` can
    tell no more, however little they vary. Few draws of an estimator with few outcomes may well all be the same.

    Args:
        values: at least two independent numbers of one distribution.
        null: the mean claimed.
        rounding: how far off a mean may be that is still counted as `null`.
        side: "two", or "greater" for the alternative that the mean is larger.
        deterministic: the numbers are known not to vary. If they do not, they are rejected with p = 0 exactly when they
            are further off than the rounding.

    Raises:
        InputError: on fewer than two numbers, or numbers that are not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 2:
        raise InputError(f"a test of a mean needs at least 2 numbers, got {len(sample)}")
    if not np.isfinite(sample).all():
        raise InputError("the draws hold NaN or infinite values: nothing can be tested")
    mean, std = float(sample.mean()), float(sample.std(ddof=1))
    off = mean - null
    excess = off - rounding if side == "greater" else math.copysign(max(abs(off) - rounding, 0.0), off)
    error = std / math.sqrt(len(sample))
    least = 2.0 ** (-len(sample) if side == "greater" else 1 - len(sample))
    if error <= _CONSTANT * abs(mean):
        if (excess if side == "greater" else abs(excess)) <= _CONSTANT * abs(mean):
            return OneSample(mean, 0.0, 0.0, 1.0)
        return OneSample(mean, 0.0, math.copysign(math.inf, excess), 0.0 if deterministic else least)
    if excess == 0.0 and side == "two":
        return OneSample(mean, error, 0.0, 1.0, _skewness(sample, mean))
    skewness = _skewness(sample, mean)
    statistic = _unskewed(excess / std, skewness, len(sample))
    tail = float(special.stdtr(len(sample) - 1, -statistic if side == "greater" else -abs(statistic)))
    return OneSample(mean, error, statistic, max(tail if side == "greater" else 2 * tail, least), skewness)


def _skewness(sample: np.ndarray, mean: float) -> float:
    centred = sample - mean
    # scaled first: third powers of small numbers would underflow
    centred /= np.abs(centred).max()
    return float((centred**3).mean() / (centred**2).mean() ** 1.5)


def _unskewed(standardised: float, skewness: float, count: int) -> float:
    a = skewness * standardised / 3
    return math.sqrt(count) * (standardised * (1 + a + a * a / 3) + skewness / (6 * count))


def noncentrality(level: float, count: int, power: float = 0.99, sides: int = 1) -> float:
    """The shift of the mean, in standard errors, that a t test of `count` numbers sees with probability `power`.

    It is the noncentrality δ at which the noncentral t exceeds the critical value c, by the normal approximation
    P(t > c) = Φ((δ − c (1 − 1/(4ν))) / √(1 + c²/(2ν))) with ν = count − 1.
    """
    degrees = count - 1
    critical = -float(special.stdtrit(degrees, level / sides))
    widening = math.sqrt(1 + critical**2 / (2 * degrees))
    return critical * (1 - 1 / (4 * degrees)) + float(special.ndtri(power)) * widening


def alike_and_off(found: OneSample) -> bool:
    """Whether the numbers did not vary, and their mean is not the one claimed."""
    return found.error == 0.0 and found.p_value < 1.0


def doubted(found: OneSample, count: int, rarest: float) -> OneSample:
    """The finding, with p ≥ (1 − rarest)^T where T = `count` numbers are all alike and off.

    An event of smaller probability per number than `rarest` may not have happened yet; 0 leaves the finding as it is.
    """
    if not rarest or not alike_and_off(found):
        return found
    return found._replace(p_value=max(found.p_value, (1 - rarest) ** count))


def least_shift(found: OneSample, level: float, count: int, power: float = 0.99) -> float:
    """The shift of the mean, to either side, that the two-sided test of `one_sample` sees with probability `power`.

    Without skewness it is δ standard errors (`noncentrality`). With skewness γ, a shift of S standard deviations has the
    statistic √n h(S) with h(S) = S + γ S²/3 + γ² S³/27 = ((1 + γ S/3)³ − 1)/γ, which is flatter on the side away from the
    long tail. There |h(S)| = δ/√n at |S| = 3 (1 − (1 − |γ| δ/√n)^⅓) / |γ|, the larger of the two.

    Args:
        found: the tested sample.
        level: of the test.
        count: of the numbers.
        power: probability of rejecting.
    """
    scaled = noncentrality(level, count, power, sides=2) / math.sqrt(count)
    skewness = abs(found.skewness)
    if skewness * scaled > 1e-9:
        scaled = 3 * (1 - float(np.cbrt(1 - skewness * scaled))) / skewness
    return found.error * math.sqrt(count) * scaled


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment: rejecting the adjusted values ≤ level keeps the family's error below level.

    It holds whatever the dependence between the tests.
    """
    order = np.argsort(p_values, kind="stable")
    stepped = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted


def check_sample(draws: int, level: float, least: int) -> None:
    """Refuse an unusable sample size or level.

    Raises:
        InputError: unless draws is an integer ≥ least and level a probability in (0, 1).
    """
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < least:
        raise InputError(f"draws={draws!r} must be an integer ≥ {least}")
    if not 0.0 < level < 1.0:
        raise InputError(f"level={level!r} must be a probability in (0, 1)")
