"""A straight trend within blocks: least squares with one slope, and an intercept of its own for every block.

With blocks b, y_bi = a_b + β x_bi + e_bi. Centred in every block, β̂ = Σ x y / Σ x², its squared standard error is
Σ (y − β̂x)² / ((N − B − 1) Σ x²), and (β̂ − β) over it has Student's t-distribution on N − B − 1 degrees of freedom, where
errors are independent, normal and of one variance (Scheffé, "The Analysis of Variance", Wiley 1959, section 6.2).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from wtacrs.estimators import InputError


class Trend(NamedTuple):
    """Slope of y per unit of x.

    Attributes:
        slope: least squares estimate.
        low: lower end of its interval.
        high: upper end.
        p_value: two-sided, of a slope of 0.
        freedom: degrees of freedom.
    """

    slope: float
    low: float
    high: float
    p_value: float
    freedom: int


def trend(x: Sequence[float], y: Sequence[float], blocks: Sequence[Hashable], *, level: float = 0.95) -> Trend:
    """The common slope of all blocks.

    Args:
        x: where; not all alike within every block.
        y: what was found there.
        blocks: of every observation, its seed, say.
        level: of the interval, in (0, 1).

    Raises:
        InputError: on lists of different lengths, values that are not finite, too few observations, or an x that is the
            same all over every block.
    """
    if not len(x) == len(y) == len(blocks):
        raise InputError(f"x, y, blocks: {len(x)}, {len(y)} and {len(blocks)} observations must be as many")
    if not 0 < level < 1:
        raise InputError(f"level={level!r} must be in (0, 1)")
    places, values = np.array(x, dtype=np.float64), np.array(y, dtype=np.float64)
    if not (np.isfinite(places).all() and np.isfinite(values).all()):
        raise InputError("x, y: every value must be finite")
    names = list(dict.fromkeys(blocks))
    freedom = len(places) - len(names) - 1
    if freedom < 1:
        raise InputError(f"x: {len(places)} observations in {len(names)} blocks leave no degree of freedom")
    for name in names:
        here = np.array([block == name for block in blocks])
        places[here] -= places[here].mean()
        values[here] -= values[here].mean()
    spread = float(places @ places)
    if spread <= 1e-24 * float(np.square(x).sum()):
        raise InputError("x is the same all over every block: it has no trend")
    slope = float(places @ values) / spread
    rest = values - slope * places
    error = math.sqrt(float(rest @ rest) / freedom / spread)
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    p_value = 2 * float(stats.t.sf(abs(slope) / error, freedom)) if error > 0 else float(slope == 0)
    return Trend(slope, slope - half, slope + half, p_value, freedom)
