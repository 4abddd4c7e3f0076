"""What `min_elements` may be, wherever it is given."""

from __future__ import annotations

from wtacrs.validation.arguments import checked_integer


def checked_min_elements(value: object) -> int:
    """The number itself; an integer of numpy becomes one of Python.

    Raises:
        InputError: on anything but an integer from 0.

    >>> checked_min_elements(4)
    4
    """
    return checked_integer(value, "min_elements", least=0)
