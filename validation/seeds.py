"""What a seed may be, everywhere: what all of torch, numpy and Python's `random` take."""

from __future__ import annotations

from numbers import Integral

from wtacrs.estimators.core.errors import InputError

LARGEST_SEED = 2**32 - 1


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
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) <= LARGEST_SEED:
        raise InputError(f"{argument}={seed!r} must be an integer from 0 to {LARGEST_SEED}")
    return int(seed)
