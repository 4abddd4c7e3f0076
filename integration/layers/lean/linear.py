"""Exact linear layers that keep the recipe of their input, where it has one, and the recipe of their output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wtacrs.integration.context.shared_inputs import can_share
from wtacrs.integration.layers.compression import as_autocast, autocast_dtype
from wtacrs.integration.layers.dynamic_classes import own_class
from wtacrs.integration.layers.lean.classes import LeanModule
from wtacrs.integration.layers.lean.derivatives import first_derivative_only
from wtacrs.integration.layers.lean.recipes import packed, recipe_of, register


class LinearOfRecipe(torch.autograd.Function):
    """`F.linear` that keeps its weight and the leaves of its input's recipe. dX, dW and db are exact."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "*batch d"],
        weight: Float[Tensor, "m d"],
        bias: Float[Tensor, " m"] | None,
        plan: Any,
        dtype: torch.dtype,
        *leaves: Tensor,
    ) -> Float[Tensor, "*batch m"]:
        """By the same kernel as `nn.Linear`."""
        ctx.plan, ctx.dtype = plan, dtype
        ctx.save_for_backward(weight if ctx.needs_input_grad[0] else None, *leaves)
        y = F.linear(x, weight, bias)
        # autograd forbids an activation in place on a view that a Function returns
        return y if y._base is None else torch.ops.aten._unsafe_view(y, y.shape)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, dy: Float[Tensor, "*batch m"]) -> tuple[Tensor | None, ...]:
        """The input is made again for dW."""
        weight, *leaves = ctx.saved_tensors
        rows = dy.reshape(-1, dy.shape[-1])
        needs_dx, needs_dw, needs_db = ctx.needs_input_grad[:3]
        dx = dy @ weight if needs_dx else None
        dw = None
        if needs_dw:
            x = ctx.plan.make(tuple(leaves)).to(ctx.dtype)
            dw = rows.T @ x.reshape(-1, x.shape[-1])
        db = rows.sum(0) if needs_db else None
        return dx, dw, db, None, None, *(None for _ in leaves)


def lean_linear(
    x: Float[Tensor, "*batch d"], weight: Float[Tensor, "m d"], bias: Float[Tensor, " m"] | None
) -> Float[Tensor, "*batch m"] | None:
    """`F.linear` that keeps the recipe of its input; None where there is none, or dW needs nothing.

    Under autocast as `F.linear`: the recipe is that of the input before it is cast.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or not weight.requires_grad:
        return None
    if not (can_share(x) and can_share(weight) and weight.is_floating_point()):
        return None
    found = packed(x)
    if found is None:
        return None
    bias = None if bias is None else as_autocast(bias)
    dtype = autocast_dtype(x)
    return LinearOfRecipe.apply(as_autocast(x), as_autocast(weight), bias, found.plan, dtype, *found.leaves)


def note_product(
    layer: nn.Module,
    y: Float[Tensor, "*batch m"],
    x: Float[Tensor, "*batch d"],
    *,
    kept: bool,
    run: Callable[..., Tensor] = F.linear,
) -> None:
    """Remember that `y` is `run(x, weight, bias)`, for attention that makes it again.

    Not where the layer is a group of `fully_shard` by itself: its weight has no memory in the backward pass of attention.

    Args:
        layer: whose output it is.
        y: the output.
        x: the input.
        kept: whether the layer keeps its input if its weight trains; worth nothing as a leaf where nobody does.
        run: of input, weight and bias.
    """
    if torch.compiler.is_compiling() or not y.requires_grad or type(layer) is not own_class(layer):
        return
    weight, bias = (
        layer._parameters.get("weight"),
        layer._parameters.get("bias"),
    )  # none by that name if it is computed
    if weight is None or not (can_share(x) and can_share(y) and can_share(weight)):
        return
    kept = kept and weight.requires_grad
    if (kept and x.dtype == y.dtype) or recipe_of(x) is not None:  # autocast keeps the cast of an input
        register(y, run, x, weight, bias, kind="product")


def transposed_linear(
    x: Float[Tensor, "*batch d"], weight: Float[Tensor, "d m"], bias: Float[Tensor, " m"] | None
) -> Float[Tensor, "*batch m"]:
    """The product of a `Conv1D`."""
    return F.linear(x, weight.t(), bias)


class LeanLinear(LeanModule):
    """`nn.Linear`."""

    weight: Tensor
    bias: Tensor | None

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear.forward`."""
        if not self.is_lean(input):
            return self.stock.forward(self, input)
        y = lean_linear(input, self.weight, self.bias)
        y = self.stock.forward(self, input) if y is None else y
        note_product(self, y, input, kept=True)
        return y


class LeanConv1D(LeanModule):
    """`Conv1D` of transformers, whose weight is `[d, m]`."""

    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """As `Conv1D.forward`."""
        if not self.is_lean(x):
            return self.stock.forward(self, x)
        y = lean_linear(x, self.weight.t(), self.bias)
        y = self.stock.forward(self, x) if y is None else y
        note_product(self, y, x, kept=True, run=transposed_linear)
        return y
