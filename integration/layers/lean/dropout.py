"""Dropout that keeps one bit per element."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wtacrs.integration.layers.lean.bits import pack, unpack
from wtacrs.integration.layers.lean.classes import LeanModule
from wtacrs.integration.layers.lean.derivatives import first_derivative_only
from wtacrs.integration.layers.lean.keep_masks import kept_probability, quick_keep
from wtacrs.integration.layers.lean.options import DropoutMode
from wtacrs.integration.layers.lean.recipes import recipe_of, register, watch_too

_FUSED = ("cuda", "xpu")
"""Devices where `F.dropout` calls the kernel `native_dropout`; elsewhere it draws by `bernoulli_` and multiplies."""


def dropped(x: Float[Tensor, "*shape"], bits: Tensor, kept: float) -> Float[Tensor, "*shape"]:
    """`x` with the dropout of a mask that was drawn before, an element of which is kept with probability `kept`."""
    if x.device.type in _FUSED:
        mask = unpack(bits, x.shape, torch.bool)
        return torch.ops.aten.native_dropout_backward(x, mask, 1.0 / kept)
    return unpack(bits, x.shape, x.dtype).div_(kept).mul_(x)


class Dropout(torch.autograd.Function):
    """`F.dropout(x, p, training=True)`, 0 < p < 1.

    The mask is drawn by the very call that `F.dropout` makes: under one seed the stock layer drops the same elements, and
    torch's generator is left in the same state. On CPUs output and gradient are the stock ones bit by bit; on CUDA the
    kernel, and so the output, is the same. (Compiled code draws differently from eager code, stock or lean: there the two
    are equal in law only.)

    With `quick`, where no such kernel is, 16 random bits decide for each element: p is rounded to a multiple of 1/65,536,
    what is kept is divided by the probability that it is kept with, so that the mean is x, and the mask is equal in law
    only.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "*shape"], p: float, quick: bool
    ) -> tuple[Float[Tensor, "*shape"], Tensor]:
        """The output, and the mask in bits."""
        ctx.kept = kept_of(x, p, quick=quick)
        if x.device.type in _FUSED:
            y, kept = torch.native_dropout(x, p, True)
            bits = pack(kept.view(torch.uint8))
        elif quick:
            mask = quick_keep(x.shape, p, x.device).view(torch.uint8)
            bits = pack(mask)
            y = mask.to(x.dtype).div_(ctx.kept).mul_(x)
        else:
            factors = torch.empty_like(x).bernoulli_(1.0 - p)
            bits = pack(factors.to(torch.uint8))
            y = factors.div_(1.0 - p).mul_(x)
        ctx.save_for_backward(bits)
        ctx.mark_non_differentiable(bits)
        ctx.set_materialize_grads(False)
        return y, bits

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, dy: Float[Tensor, "*shape"] | None, _: None) -> tuple[Tensor | None, None, None]:
        """The elements that were not dropped."""
        (bits,) = ctx.saved_tensors
        return None if dy is None else dropped(dy, bits, ctx.kept), None, None


def kept_of(x: Tensor, p: float, *, quick: bool) -> float:
    """Probability that an element of such a tensor is kept."""
    return kept_probability(p, quick=quick and x.device.type not in _FUSED)


def dropout(x: Float[Tensor, "*shape"], p: float, *, quick: bool = False) -> Float[Tensor, "*shape"]:
    """Dropout that keeps bits; its output has a recipe if its input has.

    Args:
        x: the input.
        p: probability that an element is dropped, 0 < p < 1.
        quick: whether the mask may be equal in law only.
    """
    y, bits = Dropout.apply(x, p, quick)
    if not x._is_view() and recipe_of(x) is not None:  # else the input is kept by nobody
        register(y, dropped, x, bits, kept_of(x, p, quick=quick))
    watch_too(y, x)
    return y


class LeanDropout(LeanModule):
    """`nn.Dropout`, not in place."""

    p: float
    inplace: bool
    lean_terms: DropoutMode

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Dropout.forward`."""
        if not self.is_lean(input) or not input.requires_grad or self.inplace or not 0.0 < self.p < 1.0:
            return self.stock.forward(self, input)
        return dropout(input, self.p, quick=self.lean_terms == "quick")
