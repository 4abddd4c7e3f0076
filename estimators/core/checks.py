"""What is refused: input that is no floating-point matrix, a dY that does not fit x, and a field that is no choice."""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Float, Shaped
from torch import Tensor

from wtacrs.estimators.core.errors import InputError


def check_matrix(name: str, value: Tensor) -> None:
    """Refuse what is not a floating-point matrix.

    Raises:
        InputError: naming the argument and its shape or dtype.
    """
    if not isinstance(value, Tensor):
        raise InputError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.ndim != 2:
        raise InputError(f"{name} must have 2 dimensions [rows, features], got shape {list(value.shape)}")
    if not value.is_floating_point():
        raise InputError(f"{name} must be float64, float32, bfloat16 or float16, got {value.dtype}")


def check_rows_agree(x: Tensor, dy: Tensor) -> None:
    """Refuse an `x [n, d]` and a `dy [n, m]` that cannot form `dy.T @ x`.

    Raises:
        InputError: naming both shapes.
    """
    check_matrix("x", x)
    check_matrix("dy", dy)
    if x.shape[0] != dy.shape[0]:
        raise InputError(
            f"x and dy must have the same number of rows, got shapes {list(x.shape)} and {list(dy.shape)}"
        )


def check_length(kept: Shaped[Tensor, "n ..."], dy: Float[Tensor, "n2 m"]) -> None:
    """Refuse a dY that is not as long as the compressed x was.

    Args:
        kept: what was saved with one entry for every row of x, a `shape_carrier` for example.
        dy: as given to `contract`.

    Raises:
        InputError: naming both.
    """
    check_matrix("dy", dy)
    if dy.shape[0] != kept.shape[0]:
        raise InputError(f"dy must have {kept.shape[0]} rows, as the compressed x had, got shape {list(dy.shape)}")


def check_choice(field: str, value: object, accepted: Iterable[str], owner: str) -> None:
    """Refuse what is not one of some names.

    Raises:
        InputError: naming the owner, the field, its value and what is accepted.
    """
    names = tuple(accepted)
    if not isinstance(value, str) or value not in names:
        raise InputError(f"{owner}: {field}={value!r} must be one of {', '.join(names)}")
