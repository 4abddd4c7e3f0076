"""From the input of a linear layer to what is kept of it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from wtacrs.estimators import Estimator


def compressed(
    estimator: Estimator,
    x: Float[Tensor, "*batch d"],
    *,
    scores: Shaped[Tensor, " n"] | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Any, ...]:
    """What an estimator keeps of an input as `F.linear` reads it: the dtype is autocast's, the n rows are all of `batch`.

    Args:
        estimator: what compresses.
        x: the input.
        scores: one value ≥ 0 per row; None for the row norms.
        generator: source of the random numbers; None for torch's default generator of the device.
    """
    with torch.no_grad():
        rows = as_autocast(x).detach().reshape(-1, x.shape[-1])
        return estimator.compress(rows, scores=scores, generator=generator)


def as_autocast(x: Tensor) -> Tensor:
    """The tensor as `F.linear` reads it."""
    return x.to(autocast_dtype(x))


def autocast_dtype(x: Tensor) -> torch.dtype:
    """The dtype that `F.linear` reads a tensor in: its own, or under autocast that of autocast."""
    kind = x.device.type
    # autocast leaves double precision alone
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return x.dtype
    return torch.get_autocast_dtype(kind)
