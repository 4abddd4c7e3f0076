"""Activations that keep their input once, or bits, or codes, and products act(a) · b that keep a and b once, or codes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wtacrs.estimators.core.scores import has_answers
from wtacrs.integration.context.shared_inputs import can_share
from wtacrs.integration.layers.lean.bits import pack, unpack
from wtacrs.integration.layers.lean.classes import LeanModule
from wtacrs.integration.layers.lean.codes import (
    QUICK,
    TIMES_DERIVATIVE,
    Codes,
    activation_with_codes,
    product_with_codes,
)
from wtacrs.integration.layers.lean.derivatives import first_derivative_only
from wtacrs.integration.layers.lean.recipes import is_checkpointed, packed, recipe_of, register, watch


class ReLU(torch.autograd.Function):
    """`max(x, 0)`. The derivative is 1 where the output is positive, else 0: one bit per element is kept."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """By the stock kernel."""
        y = torch.relu(x)
        ctx.save_for_backward(pack((y > 0).view(torch.uint8)))
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, dy: Float[Tensor, "*shape"]) -> Tensor:
        """`dy` where the bit is set, by the stock kernel, which does not look at dy where it is not."""
        mask = unpack(ctx.saved_tensors[0], dy.shape, dy.dtype)
        return torch.ops.aten.threshold_backward.grad_input(dy, mask, 0, grad_input=mask)


class QuickGELU(torch.autograd.Function):
    """`x σ(c x)`, c = 1.702, keeping x. With s = σ(c x) the derivative is `s + c x s (1 − s)`."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The output."""
        ctx.save_for_backward(x)
        return quick_gelu(x)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, dy: Float[Tensor, "*shape"]) -> Tensor:
        """As the class says."""
        (x,) = ctx.saved_tensors
        return TIMES_DERIVATIVE["quick GELU"](dy, x)


class SquaredReLU(torch.autograd.Function):
    """`max(x, 0)²`, keeping x: the derivative is `2 max(x, 0)`."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The output."""
        ctx.save_for_backward(x)
        return squared_relu(x)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, dy: Float[Tensor, "*shape"]) -> Tensor:
        """As the class says."""
        return TIMES_DERIVATIVE["squared ReLU"](dy, ctx.saved_tensors[0])


def quick_gelu(x: Tensor) -> Tensor:
    """`x σ(1.702 x)`."""
    return x * torch.sigmoid(QUICK * x)


def squared_relu(x: Tensor) -> Tensor:
    """`max(x, 0)²`."""
    return torch.relu(x).square()


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by the tanh approximation, one kernel."""
    return F.gelu(x, approximate="tanh")


class Activation(NamedTuple):
    """An element-wise function.

    Attributes:
        value: the function, without a graph of its own making; makes the output again.
        apply: the function with a backward pass that keeps the input, or bits.
        keeps_input: whether its output has a recipe.
    """

    value: Callable[[Tensor], Tensor]
    apply: Callable[[Tensor], Tensor]
    keeps_input: bool = True


ACTIVATIONS: dict[str, Activation] = {
    "ReLU": Activation(torch.relu, ReLU.apply, keeps_input=False),
    "GELU": Activation(F.gelu, F.gelu),
    "GELU (tanh)": Activation(gelu_tanh, gelu_tanh),
    "SiLU": Activation(F.silu, F.silu),
    "quick GELU": Activation(quick_gelu, QuickGELU.apply),
    "squared ReLU": Activation(squared_relu, SquaredReLU.apply),
    "Mish": Activation(F.mish, F.mish),
    "softplus": Activation(F.softplus, F.softplus),
    "hardswish": Activation(F.hardswish, F.hardswish),
}
"""What `probes` recognises. torch's own kernels of GELU, SiLU and the like keep their input and nothing else already; new
is that the next layer need not keep the output."""

OUTPUT_KEPT: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "sigmoid": torch.sigmoid}
"""Their derivative follows from their output, which is all they keep, and the next layer keeps it too: they stay
stock."""


class Terms(NamedTuple):
    """What was found of an activation.

    Attributes:
        name: in `ACTIVATIONS`.
        gates: whether a product with its output is expected.
        codes: None for one that keeps its input.
    """

    name: str
    gates: bool
    codes: Codes | None = None

    def describe(self, bits: int | None = None) -> str:
        """In a few words; `bits` are those of codes that it does not have yet."""
        bits = self.codes.bits if self.codes else bits
        coded = bits is not None and ACTIVATIONS[self.name].keeps_input
        gated = ", gated" if self.gates else ""
        return f"{self.name}{gated}" + (f", {bits}-bit codes where they are less" if coded else "")


class LeanActivation(LeanModule):
    """A module that is an element-wise function of one tensor."""

    lean_terms: Terms

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As that of the stock class."""
        x = args[0] if len(args) == 1 and not kwargs else None
        if x is None or not self.is_lean(x) or not x.requires_grad:
            return self.stock.forward(self, *args, **kwargs)
        name, gates, codes = self.lean_terms
        if codes is not None and not is_checkpointed():
            return self._with_codes(x, name, gates, codes)
        y = _exact(x, name)
        return awaiting_product(y) if gates else y

    def _with_codes(self, x: Tensor, name: str, gates: bool, codes: Codes) -> Tensor:
        asked = codes.next_call()
        y = None
        if not gates:
            y = activation_with_codes(x, ACTIVATIONS[name].value, name, codes, asked=asked)
        if y is None:
            y = _exact(x, name)
        watch(y, codes.asked)
        return awaiting_product(y, Gate(x, x._version, y._version, name, codes, asked)) if gates else y


def _exact(x: Tensor, name: str) -> Tensor:
    found = ACTIVATIONS[name]
    y = found.apply(x)
    if found.keeps_input:
        register(y, found.value, x)
    return y


class Gate(NamedTuple):
    """What act(a) was made of, for a product that keeps codes.

    Attributes:
        a: the input.
        version: of the input.
        output_version: of act(a).
        name: of the activation.
        codes: of the activation.
        asked: whether an exact layer has asked for the product of the last call.
    """

    a: Tensor
    version: int
    output_version: int
    name: str
    codes: Codes
    asked: bool


class AwaitingProduct(Tensor):
    """The output of an activation on its way to a product: `act(a) * b` then keeps a and b, and not act(a).

    A product is no module, and the code around it is somebody else's; so the operand itself says how it is multiplied.
    Whatever else is done with it is done with a plain tensor, and gives plain tensors.
    """

    gate: Gate | None = None

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Multiply with what is kept anyway; leave all else as it is."""
        with torch._C.DisableTorchFunctionSubclass():
            if func in _PRODUCTS and len(args) == 2 and not kwargs:
                product = _product(*args)
                if product is not None:
                    return product
            return func(*args, **(kwargs or {}))


_PRODUCTS = (torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__)


def awaiting_product(y: Tensor, gate: Gate | None = None) -> Tensor:
    """A view of an activation's output that keeps less when it is multiplied."""
    with torch._C.DisableTorchFunctionSubclass():
        found = _awaiting(y)
        found.gate = gate
        return found


def _awaiting(y: Tensor) -> AwaitingProduct:
    if type(y) is Tensor or not has_answers(y):
        return y.as_subclass(AwaitingProduct)
    view = y.view_as(y)  # of a simulated step, where it has a class that it must keep
    view.__class__ = _class_of(type(view))
    return cast("AwaitingProduct", view)


@cache
def _class_of(kind: type[Tensor]) -> type[Tensor]:
    return type(AwaitingProduct.__name__, (AwaitingProduct, kind), {})


def _product(one: Any, other: Any) -> Tensor | None:
    """The product of an activation and a gate; None where it is no such thing."""
    act, gate = (one, other) if isinstance(one, AwaitingProduct) else (other, one)
    if not isinstance(gate, Tensor) or not can_share(gate) or torch.compiler.is_compiling():
        return None
    fits = gate.shape == act.shape and gate.dtype == act.dtype and gate.device == act.device
    if not fits or not torch.is_grad_enabled() or not (act.requires_grad and gate.requires_grad):
        return None
    found = act.gate if isinstance(act, AwaitingProduct) else None
    y = None if found is None else _coded(act, gate, found)
    if y is None:
        y = gated(act.as_subclass(Tensor), gate)
    if found is not None:
        found.codes.asked.by_any = False  # of act(a) by the product itself
        watch(y, found.codes.asked)
    return y


def _coded(act: Tensor, b: Tensor, found: Gate) -> Tensor | None:
    """The product that keeps codes; None where they are more, or somebody looks at the gradient by act(a).

    It reads a, and passes act(a) by.
    """
    if act._backward_hooks or act.retains_grad or found.a.dtype != b.dtype:
        return None
    if (found.a._version, act._version) != (found.version, found.output_version):
        return None
    return product_with_codes(found.a, b, act.as_subclass(Tensor), found.name, found.codes, asked=found.asked)


class Gated(torch.autograd.Function):
    """`act · b` for an act with a recipe, keeping b and the leaves of the recipe (a, which act keeps anyway).

    d act = dy · b, and db = dy · act, with act made again.
    """

    @staticmethod
    def forward(ctx: Any, act: Tensor, b: Tensor, plan: Any, *leaves: Tensor) -> Tensor:
        """The product."""
        ctx.plan = plan
        ctx.save_for_backward(b, *leaves)
        return act * b

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """As the class says."""
        b, *leaves = ctx.saved_tensors
        da = dy * b
        db = ctx.plan.make(tuple(leaves)).mul_(dy)
        return da, db, None, *(None for _ in leaves)


def gated(act: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`act · b`, which keeps b and what act was made of, and has a recipe itself; the stock product without a recipe."""
    found = packed(act)
    if found is None:
        return act * b
    y = Gated.apply(act, b, found.plan, *found.leaves)
    base = act._base if act._is_view() else act
    if base is not None and base.shape == act.shape and recipe_of(base) is not None:
        register(y, torch.mul, base, b)
    return y
