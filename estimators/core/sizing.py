"""The one place where a budget becomes a number of rows."""

from __future__ import annotations

import math

from wtacrs.estimators.core.errors import InputError

# 0.29 * 100 is 28.999999999999996 in floating point, and a user who asks for 29 % of 100 rows means 29
_ROUNDING_SLACK = 1e-9


def check_budget(budget: int | float, owner: str) -> None:
    """Refuse a budget that is neither a fraction of the rows nor a number of rows.

    Args:
        budget: a float in (0, 1] is the fraction of rows kept, an int ≥ 1 the number of rows kept.
        owner: the estimator's name, for the message.

    Raises:
        InputError: for any other value; `1` means one row and `1.0` means all rows.
    """
    accepted = "a float in (0, 1] (fraction of the rows) or an int ≥ 1 (number of rows)"
    if isinstance(budget, bool) or not isinstance(budget, (int, float)):
        raise InputError(f"{owner}: budget={budget!r} must be {accepted}")
    if not (budget >= 1 if isinstance(budget, int) else 0.0 < budget <= 1.0):
        raise InputError(f"{owner}: budget={budget!r} must be {accepted}")


def rows_for(budget: int | float, n: int) -> int:
    """Number of rows k that a checked `budget` keeps of `n` rows.

    A fraction is rounded down, but never below one row while there is one; a number of rows is capped at n.

    >>> rows_for(0.3, 10), rows_for(0.29, 100), rows_for(0.01, 10), rows_for(32, 10), rows_for(1.0, 7)
    (3, 29, 1, 10, 7)
    """
    wanted = budget if isinstance(budget, int) else math.floor(budget * n + _ROUNDING_SLACK)
    return min(max(int(wanted), 1), n)
