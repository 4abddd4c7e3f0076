"""What `min_elements` may be, wherever it is given."""

from __future__ import annotations

from numbers import Integral

from wtacrs.estimators import InputError


def checked_min_elements(value: object) -> int:
    """The number itself; an integer of numpy becomes one of Python.

    Raises:
        InputError: on anything but an integer from 0.

    >>> checked_min_elements(4)
    4
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 0:
        raise InputError(f"min_elements={value!r} must be an integer from 0")
    return int(value)
