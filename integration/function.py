"""The one autograd Function: an exact linear forward, exact dX and db, and an estimated dW."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

from wtacrs.estimators import Estimator


class SampledLinear(torch.autograd.Function):
    """`F.linear` whose backward pass has kept only what `estimator.compress` returned of the input.

    The compressed input goes through `save_for_backward`, so saved-tensor hooks, checkpointing and offloading see
    it. Nothing is kept for dX but the weight, and nothing at all for db.
    """

    @staticmethod
    def forward(
        x: Float[Tensor, "*batch d"],
        weight: Float[Tensor, "m d"],
        bias: Float[Tensor, " m"] | None,
        scores: Shaped[Tensor, " n"] | None,
        estimator: Estimator,
    ) -> Float[Tensor, "*batch m"]:
        """`x @ weight.T + bias`, by the same kernel as `nn.Linear`."""
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Compress the input as n = prod(batch) rows."""
        x, weight, _, scores, estimator = inputs
        needs_dx, needs_dw = ctx.needs_input_grad[:2]
        saved = estimator.compress(x.reshape(-1, x.shape[-1]), scores=scores) if needs_dw else ()
        ctx.estimator = estimator
        ctx.saved_type = type(saved)
        ctx.save_for_backward(weight if needs_dx else None, *saved)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Float[Tensor, "*batch m"]) -> tuple[Tensor | None, ...]:
        """Exact dX and db; dW by `estimator.contract`."""
        weight, *kept = ctx.saved_tensors
        dy_rows = dy.reshape(-1, dy.shape[-1])
        needs_dx, needs_dw, needs_db = ctx.needs_input_grad[:3]
        dx = dy @ weight if needs_dx else None
        dw = ctx.estimator.contract(ctx.saved_type(*kept), dy_rows) if needs_dw else None
        db = dy_rows.sum(0) if needs_db else None
        return dx, dw, db, None, None


def sampled_linear(
    x: Float[Tensor, "*batch d"],
    weight: Float[Tensor, "m d"],
    bias: Float[Tensor, " m"] | None,
    estimator: Estimator,
    *,
    scores: Shaped[Tensor, " n"] | None = None,
) -> Float[Tensor, "*batch m"]:
    """`F.linear(x, weight, bias)` with an estimated weight gradient, under autocast as `F.linear` itself.

    Args:
        x: input; its leading axes together are the n rows.
        weight: as `nn.Linear.weight`.
        bias: as `nn.Linear.bias`, or None.
        estimator: what to keep of `x`.
        scores: one value ≥ 0 per row; default the row norms of `x`. A row of score 0 is never sampled.

    Random numbers come from torch's default generator of the device, as dropout's do, so that activation
    checkpointing replays them.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = _autocast(x, dtype), _autocast(weight, dtype)
        bias = None if bias is None else _autocast(bias, dtype)
    return SampledLinear.apply(x, weight, bias, scores, estimator)


def _autocast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # autocast leaves double precision alone
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)
