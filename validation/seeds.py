"""What a seed may be, everywhere: what all of torch, numpy and Python's `random` take."""

from __future__ import annotations

from numbers import Integral
from typing import TypeGuard

from wtacrs.estimators.core.errors import InputError

LARGEST_SEED = 2**32 - 1
ACCEPTED_SEEDS = f"an integer from 0 to {LARGEST_SEED}"


def checked_seed(seed: object, argument: str = "seed") -> int:
    """The seed itself; an integer of numpy becomes one of Python.

    Args:
        seed: given by the user.
        argument: what it was given as, for the message.

    Raises:
        InputError: on anything but an integer from 0 to `LARGEST_SEED`.

    >>> checked_seed(7)
    7
    """
    if not is_seed(seed):
        raise InputError(f"{argument}={seed!r} must be {ACCEPTED_SEEDS}")
    return int(seed)


def is_seed(value: object) -> TypeGuard[int]:
    """Whether a value is an integer from 0 to `LARGEST_SEED`, of Python or of numpy."""
    return not isinstance(value, bool) and isinstance(value, Integral) and 0 <= int(value) <= LARGEST_SEED
