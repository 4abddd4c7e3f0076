"""What `min_elements` and `min_rows` may be, wherever they are given, and which inputs are too small by them."""

from __future__ import annotations

from torch import Tensor

from wtacrs.validation.arguments import checked_integer


def checked_min_elements(value: object) -> int:
    """The number itself; an integer of numpy becomes one of Python.

    Raises:
        InputError: on anything but an integer from 0.

    >>> checked_min_elements(4)
    4
    """
    return checked_integer(value, "min_elements", least=0)


def checked_min_rows(value: object) -> int:
    """The number itself; an integer of numpy becomes one of Python.

    Raises:
        InputError: on anything but an integer from 0.

    >>> checked_min_rows(512)
    512
    """
    return checked_integer(value, "min_rows", least=0)


def rows_of(x: Tensor) -> int:
    """n, the rows of an input: its leading axes together."""
    return x.shape[:-1].numel()


def is_too_small(x: Tensor, min_elements: int, min_rows: int) -> bool:
    """Whether an input has too few numbers or rows, or none, so that its dW is the exact product."""
    return x.numel() < max(min_elements, 1) or rows_of(x) < min_rows
