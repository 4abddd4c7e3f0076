"""The one autograd Function: an exact linear forward, exact dX and db, and an estimated dW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

from wtacrs.estimators import Estimator, InputError
from wtacrs.integration.layers.compression import as_autocast, compressed

GradRowsHook = Callable[[Tensor], None]
"""Called in the backward pass with the rows of dY, `[n, m]`, which it must not change."""


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
        kept: tuple[Any, ...] | None,
        on_grad: GradRowsHook | None,
    ) -> Float[Tensor, "*batch m"]:
        """`x @ weight.T + bias`, by the same kernel as `nn.Linear`."""
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Compress the input, unless that is done."""
        x, weight, _, scores, estimator, kept, on_grad = inputs
        needs_dx, needs_dw = ctx.needs_input_grad[:2]
        saved: tuple[Any, ...] = ()
        if needs_dw:
            saved = compressed(estimator, x, scores=scores) if kept is None else kept
        ctx.estimator, ctx.on_grad = estimator, on_grad
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
        if ctx.on_grad is not None:
            ctx.on_grad(dy_rows)
        return dx, dw, db, None, None, None, None


def sampled_linear(
    x: Float[Tensor, "*batch d"],
    weight: Float[Tensor, "m d"],
    bias: Float[Tensor, " m"] | None,
    estimator: Estimator,
    *,
    scores: Shaped[Tensor, " n"] | None = None,
    kept: tuple[Any, ...] | None = None,
    on_grad: GradRowsHook | None = None,
) -> Float[Tensor, "*batch m"]:
    """`F.linear(x, weight, bias)` with an estimated weight gradient, under autocast as `F.linear` itself.

    Args:
        x: input; its leading axes together are the n rows.
        weight: as `nn.Linear.weight`.
        bias: as `nn.Linear.bias`, or None.
        estimator: what to keep of `x`.
        scores: one value ≥ 0 per row; default the row norms of `x`. A row of score 0 is never sampled.
        kept: what `compressed` returned of `x`, if that was done; `scores` are not looked at then.
        on_grad: called with the rows of dY in the backward pass.

    Random numbers come from torch's default generator of the device, as dropout's do, so that activation
    checkpointing replays them if it runs the forward pass with gradients enabled (`use_reentrant=False`).

    Raises:
        InputError: if input or weight is a `DTensor`, of which no process has whole rows. (`fully_shard` gathers the
            weights before a layer runs.)
    """
    if _in_pieces(x) or _in_pieces(weight):
        raise InputError(
            f"weight {list(weight.shape)}: a DTensor within the layer (tensor parallelism?), of which no process has "
            "whole rows; use fully_shard or DistributedDataParallel, or leave the layer exact with filter_fn"
        )
    bias = None if bias is None else as_autocast(bias)
    return SampledLinear.apply(as_autocast(x), as_autocast(weight), bias, scores, estimator, kept, on_grad)


def _in_pieces(tensor: Tensor) -> bool:
    # by name: importing the class takes long
    return type(tensor).__name__ == "DTensor"
