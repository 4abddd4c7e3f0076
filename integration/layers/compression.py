"""From the input of a linear layer to what is kept of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from wtacrs.estimators import Estimator, row_norms
from wtacrs.estimators.core.scores import has_values


class Compressed(NamedTuple):
    """What is kept of an input.

    Attributes:
        saved: what the estimator returned.
        poison: 0 where the input was finite, else NaN, to be added to dW; None where it is known to be finite.
    """

    saved: tuple[Any, ...]
    poison: Float[Tensor, ""] | None


def compressed(
    estimator: Estimator,
    x: Float[Tensor, "*batch d"],
    *,
    scores: Shaped[Tensor, " n"] | None = None,
    generator: torch.Generator | None = None,
) -> Compressed:
    """What an estimator keeps of an input as `F.linear` reads it: the dtype is autocast's, the n rows are all of `batch`.

    An input or score that is NaN or infinite is no error, since training recovers from it where the stock layer does
    (`GradScaler` skips the step): the estimator gets an input of zeros, and dW becomes NaN.

    Args:
        estimator: what compresses.
        x: the input.
        scores: one value ≥ 0 per row; None for the row norms.
        generator: source of the random numbers; None for torch's default generator of the device.
    """
    with torch.no_grad():
        rows = as_autocast(x).detach().reshape(-1, x.shape[-1])
        scores = row_norms(rows) if scores is None else scores
        rows, scores, poison = _finite(rows, scores, whole=estimator.traits.family != "rows")
        return Compressed(estimator.compress(rows, scores=scores, generator=generator), poison)


def _finite(
    rows: Float[Tensor, "n d"], scores: Shaped[Tensor, " n"], *, whole: bool
) -> tuple[Float[Tensor, "n d"], Shaped[Tensor, " n"], Float[Tensor, ""] | None]:
    """Rows and scores that an estimator accepts, and what makes dW NaN where they were not finite.

    An estimator that computes with the `whole` of X, and does not only choose rows, may not see NaN.
    """
    finite = torch.isfinite(scores).all()
    if has_values(finite) and bool(finite):
        return rows, scores, None
    rows = torch.where(finite, rows, 0.0) if whole else rows
    return rows, torch.where(finite, scores, 1.0), torch.where(finite, 0.0, torch.nan)


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
