"""An external object with the values it is given, and what its signature says of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from wtacrs.estimators import InputError

# names of the second argument that tell what a function is
WEIGHTS = {"w", "W", "weight", "weights"}
OUT_NAMES = {"out", "out_features", "d_out", "n_out", "out_dim", "output_size"}


class Piece(NamedTuple):
    """An external object and the values of its hyperparameters.

    Attributes:
        label: what to call it.
        found: the object.
        given: keywords of every call of it.
        widths: columns of x and dy to try.
        rows: of the properties.
        device: where it runs; None for the CPU.
    """

    label: str
    found: Any
    given: Mapping[str, Any]
    widths: Sequence[tuple[int, int]]
    rows: int
    device: torch.device | None


def needed(piece: Piece) -> list[inspect.Parameter]:
    """Arguments without a default and without a value, of a call; of an autograd Function those of its forward pass."""
    call = piece.found
    if isinstance(call, type) and issubclass(call, torch.autograd.Function):
        call = call.forward
    try:
        parameters = inspect.signature(call).parameters.values()
    except (ValueError, TypeError):
        raise InputError(
            f"{piece.label} has no signature that can be read: wrap it in a Python function"
        ) from None
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    empty = inspect.Parameter.empty
    return [p for p in parameters if p.default is empty and p.kind not in kinds and p.name not in piece.given]


def fits(call: Callable[..., Any], *arguments: object, **keywords: object) -> bool:
    """Whether a call of these arguments has the right number and names of them."""
    try:
        inspect.signature(call).bind(*arguments, **keywords)
    except TypeError:
        return False
    return True
