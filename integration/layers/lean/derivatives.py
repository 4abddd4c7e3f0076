"""What the backward passes of lean Functions share: they give first derivatives alone, and say so."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from wtacrs.estimators.core.errors import InputError


def first_derivative_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse a backward pass whose own graph is wanted (`create_graph=True`).

    torch's `once_differentiable` refuses only if dY needs a gradient; that the result depends on what was kept goes
    unnoticed there, and a second derivative would miss a part without a word.
    """

    @functools.wraps(backward)
    def refusing(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():
            raise InputError("create_graph=True: a lean model has no second derivative; restore_ the model")
        return backward(ctx, *gradients)

    return refusing
