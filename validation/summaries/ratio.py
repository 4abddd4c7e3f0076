"""The ratio of two sizes that may both be zero."""

from __future__ import annotations

import math


def ratio(value: int | float, reference: int | float) -> float:
    """`value / reference`; 1 where both are zero, infinite where the reference alone is."""
    if reference:
        return value / reference
    return math.inf if value else 1.0
