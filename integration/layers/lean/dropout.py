"""Dropout that keeps one bit per element."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wtacrs.integration.layers.lean.bits import pack, unpack
from wtacrs.integration.layers.lean.classes import LeanModule
from wtacrs.integration.layers.lean.derivatives import first_derivative_only
from wtacrs.integration.layers.lean.recipes import recipe_of, register, watch_too

_FUSED = ("cuda", "xpu")
"""Devices where `F.dropout` calls the kernel `native_dropout`; elsewhere it draws by `bernoulli_` and multiplies."""


def dropped(x: Float[Tensor, "*shape"], bits: Tensor, p: float) -> Float[Tensor, "*shape"]:
    """`x` with the dropout of a mask that was drawn before."""
    if x.device.type in _FUSED:
        mask = unpack(bits, x.shape, torch.bool)
        return torch.ops.aten.native_dropout_backward(x, mask, 1.0 / (1.0 - p))
    return unpack(bits, x.shape, x.dtype).div_(1.0 - p).mul_(x)


class Dropout(torch.autograd.Function):
    """`F.dropout(x, p, training=True)`, 0 < p < 1.

    The mask is drawn by the very call that `F.dropout` makes: under one seed the stock layer drops the same elements, and
    torch's generator is left in the same state. On CPUs output and gradient are the stock ones bit by bit; on CUDA the
    kernel, and so the output, is the same. (Compiled code draws differently from eager code, stock or lean: there the two
    are equal in law only.)
    """

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "*shape"], p: float) -> tuple[Float[Tensor, "*shape"], Tensor]:
        """The output, and the mask in bits."""
        if x.device.type in _FUSED:
            y, kept = torch.native_dropout(x, p, True)
            bits = pack(kept.view(torch.uint8))
        else:
            factors = torch.empty_like(x).bernoulli_(1.0 - p)
            bits = pack(factors.to(torch.uint8))
            y = factors.div_(1.0 - p).mul_(x)
        ctx.p = p
        ctx.save_for_backward(bits)
        ctx.mark_non_differentiable(bits)
        ctx.set_materialize_grads(False)
        return y, bits

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, dy: Float[Tensor, "*shape"] | None, _: None) -> tuple[Tensor | None, None]:
        """The elements that were not dropped."""
        (bits,) = ctx.saved_tensors
        return None if dy is None else dropped(dy, bits, ctx.p), None


def dropout(x: Float[Tensor, "*shape"], p: float) -> Float[Tensor, "*shape"]:
    """Dropout that keeps bits; its output has a recipe if its input has."""
    y, bits = Dropout.apply(x, p)
    if not x._is_view() and recipe_of(x) is not None:  # else the input is kept by nobody
        register(y, dropped, x, bits, p)
    watch_too(y, x)
    return y


class LeanDropout(LeanModule):
    """`nn.Dropout`, not in place."""

    p: float
    inplace: bool

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Dropout.forward`."""
        if not self.is_lean(input) or not input.requires_grad or self.inplace or not 0.0 < self.p < 1.0:
            return self.stock.forward(self, input)
        return dropout(input, self.p)
