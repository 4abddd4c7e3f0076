"""The one autograd Function: an exact linear forward, exact dX and db, and an estimated dW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor
from torch._C import _functorch

from wtacrs.estimators import Estimator, InputError
from wtacrs.estimators.core.nonzero_rows import nonzero_rows
from wtacrs.estimators.core.scores import has_values
from wtacrs.integration.layers.compression import Compressed, as_autocast, compressed
from wtacrs.integration.score_memory.seen_rows import SeenRows

GradRowsHook = Callable[[Tensor, SeenRows | None], None]
"""Called in the backward pass with the rows of dY, `[n, m]`, which it must not change, and rows kept of the input."""


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
        generator: torch.Generator | None,
        kept: Compressed | None,
        on_grad: GradRowsHook | None,
        seen: SeenRows | None,
    ) -> Float[Tensor, "*batch m"]:
        """`x @ weight.T + bias`, by the same kernel as `nn.Linear`."""
        y = F.linear(x, weight, bias)
        # autograd forbids an activation in place on a view that a Function returns
        return y if y._base is None else torch.ops.aten._unsafe_view(y, y.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Compress the input, unless that is done."""
        x, weight, _, scores, estimator, generator, kept, on_grad, seen = inputs
        needs_dx, needs_dw = ctx.needs_input_grad[:2]
        saved: tuple[Any, ...] = ()
        poison: Tensor | None = None
        if needs_dw:
            found = compressed(estimator, x, scores=scores, generator=generator) if kept is None else kept
            saved, poison = found
        ctx.estimator, ctx.on_grad = estimator, on_grad
        ctx.saved_type, ctx.level = type(saved), _level(output)
        places, rows = (None, None) if seen is None else seen
        ctx.save_for_backward(weight if needs_dx else None, poison, places, rows, *saved)

    @staticmethod
    def backward(ctx: Any, dy: Float[Tensor, "*batch m"]) -> tuple[Tensor | None, ...]:
        """Exact dX and db, which can be differentiated again; dW by `estimator.contract`, which cannot."""
        weight, poison, places, rows, *kept = ctx.saved_tensors
        _refuse_second_derivative(ctx.level, dy, weight, poison, *kept)
        dy_rows = dy.reshape(-1, dy.shape[-1])
        needs_dx, needs_dw, needs_db = ctx.needs_input_grad[:3]
        dx = _input_gradient(dy, weight, ctx.level) if needs_dx else None
        db = dy_rows.sum(0) if needs_db else None
        dw = None
        with torch.no_grad():
            if needs_dw:
                dw = ctx.estimator.contract(ctx.saved_type(*kept), dy_rows)
                dw = _poisoned(dw, poison, dy_rows, told_by_bias=needs_db)
            if ctx.on_grad is not None and not _is_mapped(dy_rows):  # what vmap maps over does not outlive it
                ctx.on_grad(dy_rows.detach(), None if places is None else SeenRows(places, rows))
        if dw is not None and ctx.level == 0 and torch.is_grad_enabled():
            dw = _Undifferentiable.apply(dw.detach().requires_grad_())
        return dx, dw, db, None, None, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        """Not defined: each example would need a draw of its own."""
        raise InputError(_MAPPED)


def _input_gradient(
    dy: Float[Tensor, "*batch m"], weight: Float[Tensor, "m d"], level: int
) -> Float[Tensor, "*batch d"]:
    """`dy @ weight`; rows of dY that are zero cost nothing, unless it is differentiated again."""
    if level == 0 and not torch.is_grad_enabled() and not _is_mapped(dy):
        rows = dy.reshape(-1, dy.shape[-1])
        nonzero = nonzero_rows(rows, weight.shape[1])
        if nonzero is not None:
            dx = rows.new_zeros((rows.shape[0], weight.shape[1]))
            dx.index_copy_(0, nonzero, rows.index_select(0, nonzero) @ weight)
            return dx.reshape(*dy.shape[:-1], weight.shape[1])
    return dy @ weight


class _Undifferentiable(torch.autograd.Function):
    """An estimate of dW in a graph that is differentiated again: what it is a function of, X, is not kept."""

    @staticmethod
    def forward(ctx: Any, dw: Tensor) -> Tensor:
        return dw.view_as(dw)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Tensor:
        raise InputError(f"create_graph=True: {_NO_SECOND}")


_NO_SECOND = "a layer with an estimated weight gradient has no second derivative of dW; restore_ the model"
_MAPPED = (
    "torch.func.vmap: a layer with an estimated weight gradient cannot be mapped over; take examples one after "
    "the other, or restore_ the model"
)


def _refuse_second_derivative(level: int, *tensors: Tensor | None) -> None:
    """Refuse `torch.func` what `once_differentiable` refuses autograd: there it would silently give zeros.

    Args:
        level: of the derivative that is taken; tensors of a lower one are being differentiated by it too.
        *tensors: that the backward pass computes with.
    """
    if level > 0 and any(tensor is not None and _tracked_below(level, tensor) for tensor in tensors):
        raise InputError(f"torch.func: {_NO_SECOND}")


def _level(tensor: Tensor) -> int:
    """Of the transform of `torch.func` that a tensor belongs to, 0 outside of any."""
    return 0 if torch.compiler.is_compiling() else max(_functorch.maybe_get_level(tensor), 0)


def _tracked_below(level: int, tensor: Tensor) -> bool:
    while _functorch.is_functorch_wrapped_tensor(tensor):
        if _functorch.is_gradtrackingtensor(tensor) and 0 < _level(tensor) < level:
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False


def _poisoned(dw: Tensor, poison: Tensor | None, dy: Tensor, *, told_by_bias: bool) -> Tensor:
    """NaN where X was not finite; likewise for dY, of which a row that is not finite may be among those left out.

    db, where there is one, tells of dY already.
    """
    if not told_by_bias:
        wide = torch.float64 if dy.dtype == torch.float64 else torch.float32  # holds the sum of all finite halves
        of_dy = dy.sum(dtype=wide) * 0.0
        poison = of_dy if poison is None else poison + of_dy
    if poison is None or (has_values(poison) and float(poison) == 0.0):
        return dw  # nothing to add: a pass over dW less
    return dw + poison.to(dw.dtype)


def sampled_linear(
    x: Float[Tensor, "*batch d"],
    weight: Float[Tensor, "m d"],
    bias: Float[Tensor, " m"] | None,
    estimator: Estimator,
    *,
    scores: Shaped[Tensor, " n"] | None = None,
    generator: torch.Generator | None = None,
    kept: Compressed | None = None,
    on_grad: GradRowsHook | None = None,
    seen: SeenRows | None = None,
) -> Float[Tensor, "*batch m"]:
    """`F.linear(x, weight, bias)` with an estimated weight gradient, under autocast as `F.linear` itself.

    Args:
        x: input; its leading axes together are the n rows.
        weight: as `nn.Linear.weight`.
        bias: as `nn.Linear.bias`, or None.
        estimator: what to keep of `x`.
        scores: one value ≥ 0 per row; default the row norms of `x`. A row of score 0 is never sampled.
        generator: source of the random numbers; default torch's default generator of the device, which activation
            checkpointing replays as it does for dropout, if it runs the forward pass with gradients enabled
            (`use_reentrant=False`).
        kept: what `compressed` returned of `x`, if that was done; `scores` are not looked at then.
        on_grad: called with the rows of dY, and with `seen`, in the backward pass.
        seen: rows of the input that are kept for `on_grad` besides.

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
    return SampledLinear.apply(
        as_autocast(x), as_autocast(weight), bias, scores, estimator, generator, kept, on_grad, seen
    )


def refuse_vmap(*tensors: Tensor) -> None:
    """Refuse tensors that `torch.func.vmap` maps over: each of its examples would need a draw of its own.

    Raises:
        InputError: if there is one.
    """
    if any(_is_mapped(tensor) for tensor in tensors):
        raise InputError(_MAPPED)


def _is_mapped(tensor: Tensor) -> bool:
    if torch.compiler.is_compiling():
        return False
    if _functorch.is_legacy_batchedtensor(tensor):  # of `torch.autograd.grad(is_grads_batched=True)`
        return True
    while _functorch.is_functorch_wrapped_tensor(tensor):
        if _functorch.is_batchedtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False


def _in_pieces(tensor: Tensor) -> bool:
    # by name: importing the class takes long
    return type(tensor).__name__ == "DTensor"
