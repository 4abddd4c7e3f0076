"""Activations and gated products that keep unbiased codes of what their backward pass multiplies by.

The law is that of `wtacrs.estimators.rounding.element_codes`: the gradient by the input has the exact one as its mean.
The noise reaches the layers below, but neither the output nor the weights of the layers above.

**When.** Codes replace the input a of act(a). An exact layer that reads act(a) would have made it again of a, and with
codes keeps act(a) itself: more bytes than without codes. So the bytes decide, by who has asked for the recipe of the
output in the module's forward pass before; in the first pass nobody has. A layer that samples keeps rows of its own and
never asks. Gated products keep two inputs, for which codes are nearly always less. In blocks of non-reentrant
checkpointing, of which nothing is kept, there are none, so that a block and its recomputation save the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wtacrs.estimators.rounding.derivative_bounds import DERIVATIVE_BOUNDS
from wtacrs.estimators.rounding.element_codes import (
    DerivativeGrid,
    GroupCodes,
    code_bytes,
    decode,
    derivative_grid,
    encode,
    group_codes,
    group_values,
)
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.lean.derivatives import first_derivative_only
from wtacrs.integration.layers.lean.recipes import Asked

_aten = torch.ops.aten
QUICK = 1.702
"""c of quick GELU, `x σ(c x)`."""


def _quick_gelu(dy: Tensor, x: Tensor) -> Tensor:
    s = torch.sigmoid(QUICK * x)
    return dy * (s + QUICK * x * s * (1.0 - s))


TIMES_DERIVATIVE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "GELU": _aten.gelu_backward.default,
    "GELU (tanh)": lambda dy, x: _aten.gelu_backward(dy, x, approximate="tanh"),
    "SiLU": _aten.silu_backward.default,
    "quick GELU": _quick_gelu,
    "squared ReLU": lambda dy, x: dy * torch.relu(x).mul_(2.0),
    "Mish": _aten.mish_backward.default,
    "softplus": lambda dy, x: _aten.softplus_backward(dy, x, 1.0, 20.0),
    "hardswish": _aten.hardswish_backward.default,
}
"""`dY · act'(x)` of (dY, x), by name; of all activations that keep their input."""


@dataclass(eq=False)
class Codes:
    """What an activation knows of its codes.

    Attributes:
        bits: of a code.
        context: whose forward passes the random numbers belong to.
        path: name of the module in the model.
        asked: notes who has asked for the recipe of the output since the last call.
    """

    bits: int
    context: ForwardContext
    path: str
    asked: Asked

    def next_call(self) -> bool:
        """Whether an exact layer has asked for the output of the last call; a call begins."""
        before, self.asked = self.asked.by_any, Asked()
        return before

    def generator(self, device: torch.device) -> torch.Generator | None:
        """Source of the random numbers of this call."""
        current = self.context.current
        return None if current is None else current.generator(self.path, device)


def pays(inputs: int, elements: int, itemsize: int, bits: int, *, codes: int, grouped: bool, asked: bool) -> bool:
    """Whether codes keep fewer bytes than the inputs.

    Args:
        inputs: that the exact backward pass keeps.
        elements: of each.
        itemsize: bytes of an element.
        bits: of a code.
        codes: for each element.
        grouped: whether they have steps of their own.
        asked: whether an exact layer keeps the output if it has no recipe.

    >>> pays(1, 4096, 4, 8, codes=1, grouped=False, asked=False)
    True
    >>> pays(1, 4096, 4, 8, codes=1, grouped=False, asked=True)
    False
    >>> pays(2, 4096, 4, 8, codes=2, grouped=True, asked=True)
    True
    """
    kept = codes * code_bytes(elements, bits, grouped=grouped) + asked * elements * itemsize
    return kept < inputs * elements * itemsize


def is_grouped(name: str) -> bool:
    """Whether the derivative has no bounds that a fixed grid could lie between."""
    return name not in DERIVATIVE_BOUNDS


def grid_of(name: str, bits: int) -> DerivativeGrid:
    """The levels of a derivative with bounds."""
    return derivative_grid(*DERIVATIVE_BOUNDS[name], bits)


class CodedActivation(torch.autograd.Function):
    """`act(x)` that keeps codes of act'(x): `E dX = dY ∘ act'(x)`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "*shape"],
        value: Callable[[Tensor], Tensor],
        name: str,
        bits: int,
        generator: torch.Generator | None,
    ) -> Float[Tensor, "*shape"]:
        """The exact output."""
        ctx.act, ctx.bits = name, bits
        if is_grouped(name):
            ctx.save_for_backward(*group_codes(x, bits, generator, of=derivative_of(name)))
        else:
            codes = encode(x, grid_of(name, bits), generator, of=derivative_of(name))
            ctx.save_for_backward(codes)
        return value(x)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, dy: Float[Tensor, "*shape"]) -> tuple[Tensor | None, ...]:
        """As the class says."""
        if is_grouped(ctx.act):
            dx = group_values(GroupCodes(*ctx.saved_tensors), ctx.bits, dy, times=True)
        else:
            dx = decode(ctx.saved_tensors[0], grid_of(ctx.act, ctx.bits), dy, times=True)
        return dx, None, None, None, None


class CodedProduct(torch.autograd.Function):
    """`act(a) · b` that keeps codes of b · act'(a) and of act(a): `E da = dY ∘ b ∘ act'(a)` and `E db = dY ∘ act(a)`."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Float[Tensor, "*shape"],
        b: Float[Tensor, "*shape"],
        act: Float[Tensor, "*shape"],
        name: str,
        bits: int,
        generator: torch.Generator | None,
    ) -> Float[Tensor, "*shape"]:
        """The exact product; `act` are the values of act(a), without a graph."""
        ctx.bits = bits
        one = group_codes(a, bits, generator, of=lambda a, b: TIMES_DERIVATIVE[name](b, a), beside=b)
        ctx.save_for_backward(*one, *group_codes(act, bits, generator))
        return act * b

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, dy: Float[Tensor, "*shape"]) -> tuple[Tensor | None, ...]:
        """As the class says."""
        one, other = GroupCodes(*ctx.saved_tensors[:3]), GroupCodes(*ctx.saved_tensors[3:])
        da = group_values(one, ctx.bits, dy, times=True)
        db = group_values(other, ctx.bits, dy, times=True)
        return da, db, None, None, None, None


def derivative_of(name: str) -> Callable[[Tensor], Tensor]:
    """act' of pieces of which none is longer than the first; the ones that it is multiplied by are made once."""
    ones: list[Tensor] = []

    def of(x: Tensor) -> Tensor:
        if not ones:
            ones.append(torch.ones_like(x))
        return TIMES_DERIVATIVE[name](ones[0][: len(x)], x)

    return of


def activation_with_codes(
    x: Float[Tensor, "*shape"], value: Callable[[Tensor], Tensor], name: str, codes: Codes, *, asked: bool
) -> Float[Tensor, "*shape"] | None:
    """`act(x)` that keeps codes; None where its input is fewer bytes."""
    grouped = is_grouped(name)
    if not pays(1, x.numel(), x.element_size(), codes.bits, codes=1, grouped=grouped, asked=asked):
        return None
    y: Tensor = CodedActivation.apply(x, value, name, codes.bits, codes.generator(x.device))
    return y


def product_with_codes(
    a: Float[Tensor, "*shape"],
    b: Float[Tensor, "*shape"],
    act: Float[Tensor, "*shape"],
    name: str,
    codes: Codes,
    *,
    asked: bool,
) -> Float[Tensor, "*shape"] | None:
    """`act(a) · b` that keeps codes; None where a and b are fewer bytes."""
    if not pays(2, a.numel(), a.element_size(), codes.bits, codes=2, grouped=True, asked=asked):
        return None
    y: Tensor = CodedProduct.apply(a, b, act.detach(), name, codes.bits, codes.generator(a.device))
    return y
