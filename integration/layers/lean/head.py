"""Output projection and cross-entropy whose logits are never whole, for any model that calls `F.cross_entropy`.

For a row x with label y, logits z = W x + b, smoothing ε and V classes,

    loss = logsumexp(z) − (1 − ε) z_y − ε/V Σ z        dz = softmax(z) − (1 − ε) e_y − ε/V
    dX = dZ W                                          dW = dZᵀ X            db = Σ dZ

so that rows are independent, and a few of them at a time (`PIECE`) suffice. Rows whose label is ignored have dz = 0: they
are left out, exactly. There are two ways, both exact up to rounding:

- "forward": the gradients are computed in the forward pass, where the logits of a piece are there anyway. Kept are dX and
  dW, no extra product is computed, and the backward pass multiplies them by the gradient of the loss.
- "again": kept are x, W, b and labels, which are there anyway. The backward pass computes the logits again, a third more
  products of the head.

**Sampled dW.** With a row estimator, `dW = Σ_j w_j dz_(i_j) x_(i_j)ᵀ` over the rows that it draws, by their norms, among
those with a label. It is unbiased as in any layer with an estimated dW; loss, dX and db stay exact. Rows that are not
drawn cost no product for dW.

**The mechanism.** A head in training returns `DeferredLogits`, a tensor without numbers. It passes through what does
not touch a number: shape, dtype and device, views and indices of the leading axes, `contiguous`, and casts to a wider
type. `F.cross_entropy` with class labels consumes it a piece at a time, with `ignore_index`, `label_smoothing`, and
every reduction. Anything else gets the real logits, which are computed once, with their graph, and stand for it from
then on; so are class weights and probabilities as labels. Views alive at that moment become views of them, so that work
in place has the effect it has on stock logits. Functions that look past Python (`Function.apply`, C++) see real logits
too, and their gradient goes the way of any linear layer.

**What stays stock.** Eval mode, a forward pass without gradients, `torch.compile`, `torch.func`, parametrized weights,
and an input that needs no gradient before a frozen weight. `outputs.logits` of a training step is computed when it is
read, from the weight as it is then: after the optimizer changed the weight this is refused, since it would silently be
another model's. A head that `fully_shard` was given by itself stays stock, since its weight is in pieces again by then;
in a model that is sharded as a whole the hooks of `fully_shard` on outputs read the logits after the loss.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch._C import _functorch
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_map_only

from wtacrs.estimators import Estimator, InputError, make, row_norms
from wtacrs.estimators.rows.row_estimator import RowEstimator
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.compression import autocast_dtype
from wtacrs.integration.layers.dynamic_classes import is_parametrized, own_class, set_class
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad, make_stock
from wtacrs.integration.parallel.wrappers import unwrapped

PIECE = 2**24
"""Bytes of logits that are computed at a time."""

Mode = Literal["forward", "again"]
Reduction = Literal["mean", "sum", "none"]


class Terms(NamedTuple):
    """What is computed, besides the tensors.

    Attributes:
        dtype: that the logits are computed in, as autocast would.
        ignore_index: label of rows that do not count.
        smoothing: ε.
        reduction: of the losses of rows; "mean" is over those that count.
    """

    dtype: torch.dtype
    ignore_index: int = -100
    smoothing: float = 0.0
    reduction: Reduction = "mean"


class _Head(NamedTuple):
    """The tensors of a linear + cross-entropy: x `[n, d]`, W `[V, d]`, b `[V]`, labels `[n]`, row weights `[n]`."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    labels: Tensor
    row_weights: Tensor | None


class _Gradients(NamedTuple):
    dx: Tensor | None
    dw: Tensor | None
    db: Tensor | None


def _losses(head: _Head, terms: Terms) -> Float[Tensor, " n"]:
    """Of all rows, 0 where the label is ignored."""
    losses = head.x.new_zeros(len(head.x), dtype=_working(terms.dtype))
    weight, bias = _cast(head, terms)
    for rows, _ in _pieces(head, terms, len(weight)):
        logits = _logits(head.x[rows], weight, bias, terms)
        losses[rows] = _row_losses(logits, head.labels[rows], terms, torch.logsumexp(logits, 1))
    return losses


def _losses_and_gradients(
    head: _Head, terms: Terms, scale: Tensor | None, needs: Sequence[bool]
) -> tuple[Float[Tensor, " n"], _Gradients]:
    """Losses of all rows and the gradients of `Σ scale_i loss_i`; `scale` is one number, one per row, or None for 1."""
    x, labels = head.x, head.labels
    weight, bias = _cast(head, terms)
    losses = x.new_zeros(len(x), dtype=_working(terms.dtype))
    dx = torch.zeros_like(x) if needs[0] else None
    dw = torch.zeros_like(head.weight) if needs[1] else None
    db = torch.zeros_like(head.bias) if needs[2] and head.bias is not None else None
    for rows, of_dw in _pieces(head, terms, len(weight)):
        part, label = x[rows], labels[rows]
        logits = _logits(part, weight, bias, terms)
        lse = torch.logsumexp(logits, 1)
        losses[rows] = _row_losses(logits, label, terms, lse)
        dz = logits.sub_(lse[:, None]).exp_()
        if terms.smoothing:
            dz.sub_(terms.smoothing / dz.shape[1])
        dz.scatter_add_(1, label[:, None], dz.new_full((len(dz), 1), terms.smoothing - 1.0))
        if scale is not None:
            dz.mul_(scale if scale.ndim == 0 else scale[rows, None])
        if db is not None:
            db += dz.sum(0).to(db.dtype)
        dz = dz.to(terms.dtype)
        if dx is not None:
            dx[rows] = (dz @ weight).to(dx.dtype)
        if dw is not None and of_dw:
            if head.row_weights is not None:
                part = part * head.row_weights[rows, None]  # weighted before it is rounded to half precision
                if terms.dtype == torch.float16:  # weights reach n/k and beyond
                    part, dz = part.float(), dz.float()
            _add_product(dw, dz, part.to(dz.dtype))
    return losses, _Gradients(dx, dw, db)


def _add_product(dw: Tensor, dz: Tensor, x: Tensor) -> None:
    if dw.dtype == dz.dtype:
        dw.addmm_(dz.T, x)
    else:
        dw.add_(dz.T @ x)


def _cast(head: _Head, terms: Terms) -> tuple[Tensor, Tensor | None]:
    return head.weight.to(terms.dtype), None if head.bias is None else head.bias.to(terms.dtype)


def _working(dtype: torch.dtype) -> torch.dtype:
    """Of losses and softmax: single precision at least, as the losses of transformers cast."""
    return torch.promote_types(dtype, torch.float32)


def _logits(x: Tensor, weight: Tensor, bias: Tensor | None, terms: Terms) -> Float[Tensor, "r V"]:
    return F.linear(x.to(terms.dtype), weight, bias).to(_working(terms.dtype))


def _row_losses(logits: Tensor, labels: Tensor, terms: Terms, lse: Tensor) -> Float[Tensor, " r"]:
    of_label = logits.gather(1, labels[:, None]).squeeze(1)
    if not terms.smoothing:
        return lse - of_label
    return lse - (1.0 - terms.smoothing) * of_label - terms.smoothing * logits.mean(1)


Rows = slice | Int[Tensor, " r"]


def _pieces(head: _Head, terms: Terms, classes: int) -> Iterator[tuple[Rows, bool]]:
    """Rows with a label, a piece at a time, and whether they count in dW: first those that do."""
    step = max(1, PIECE // (classes * _working(terms.dtype).itemsize))
    counted = head.labels != terms.ignore_index
    if head.row_weights is None:
        found = counted.nonzero().squeeze(1)
        if len(found) == len(counted):  # no copies
            yield from ((slice(i, min(i + step, len(counted))), True) for i in range(0, len(counted), step))
            return
        groups = [(found, True)]
    else:
        drawn = head.row_weights != 0
        groups = [((counted & drawn).nonzero().squeeze(1), True), ((counted & ~drawn).nonzero().squeeze(1), False)]
    for rows, of_dw in groups:
        yield from ((rows[i : i + step], of_dw) for i in range(0, len(rows), step))


def _reduced(losses: Tensor, labels: Tensor, terms: Terms) -> Tensor:
    if terms.reduction == "none":
        return losses
    return losses.sum() if terms.reduction == "sum" else losses.sum() / (labels != terms.ignore_index).sum()


class LinearCrossEntropy(torch.autograd.Function):
    """Linear + cross-entropy with the gradients computed in the forward pass; for a loss that is one number."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "n d"],
        weight: Float[Tensor, "V d"],
        bias: Float[Tensor, " V"] | None,
        labels: Int[Tensor, " n"],
        row_weights: Float[Tensor, " n"] | None,
        terms: Terms,
    ) -> Float[Tensor, ""]:
        """The loss; saves dX, dW and db."""
        head = _Head(x, weight, bias, labels, row_weights)
        count = (labels != terms.ignore_index).sum()
        # fp16 could not hold what is divided by many rows; it is divided when GradScaler's factor is known
        ctx.later = terms.dtype == torch.float16
        scale = count.to(_working(terms.dtype)).reciprocal() if terms.reduction == "mean" else None
        with torch.autocast(x.device.type, enabled=False):
            losses, found = _losses_and_gradients(head, terms, None if ctx.later else scale, ctx.needs_input_grad)
        ctx.save_for_backward(*found, scale if ctx.later else None)
        return _reduced(losses, labels, terms)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Float[Tensor, ""]) -> tuple[Tensor | None, ...]:
        """What was saved, times the gradient of the loss."""
        *found, scale = ctx.saved_tensors
        factor = dloss if scale is None else dloss * scale
        if factor.device.type != "cpu" or float(factor) != 1.0:
            keep = torch._C._autograd._get_current_graph_task_keep_graph()
            found = [None if g is None else _times(g, factor, in_place=not keep) for g in found]
        return *found, None, None, None


def _times(g: Tensor, factor: Tensor, *, in_place: bool) -> Tensor:
    if g.dtype in (torch.float16, torch.bfloat16):  # GradScaler's factor is infinite in fp16
        return (g.float() * factor).to(g.dtype)
    return g.mul_(factor) if in_place else g * factor


class LinearCrossEntropyAgain(torch.autograd.Function):
    """Linear + cross-entropy that keeps its inputs and computes the logits again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "n d"],
        weight: Float[Tensor, "V d"],
        bias: Float[Tensor, " V"] | None,
        labels: Int[Tensor, " n"],
        row_weights: Float[Tensor, " n"] | None,
        terms: Terms,
    ) -> Float[Tensor, "*n"]:
        """The loss, or the losses of rows."""
        ctx.terms = terms
        ctx.save_for_backward(x, weight, bias, labels, row_weights)
        with torch.autocast(x.device.type, enabled=False):
            return _reduced(_losses(_Head(x, weight, bias, labels, row_weights), terms), labels, terms)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Float[Tensor, "*n"]) -> tuple[Tensor | None, ...]:
        """The gradients, from the logits computed again."""
        head, terms = _Head(*ctx.saved_tensors), ctx.terms
        if terms.reduction == "mean":
            dloss = dloss / (head.labels != terms.ignore_index).sum()
        with torch.autocast(head.x.device.type, enabled=False):
            _, found = _losses_and_gradients(head, terms, dloss, ctx.needs_input_grad)
        return *found, None, None, None


def linear_cross_entropy(
    x: Float[Tensor, "n d"],
    weight: Float[Tensor, "V d"],
    bias: Float[Tensor, " V"] | None,
    labels: Int[Tensor, " n"],
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    mode: Mode = "forward",
    row_weights: Float[Tensor, " n"] | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """`F.cross_entropy(F.linear(x, weight, bias), labels, …)`, in single precision at least, of which no logits are kept.

    Args:
        x: rows.
        weight: W.
        bias: b, or None.
        labels: classes; those equal to `ignore_index` do not count.
        ignore_index: as in `F.cross_entropy`.
        label_smoothing: ε in [0, 1], as there.
        reduction: as there; "none" is computed "again", since its gradient is not known before.
        mode: "forward" computes the gradients in the forward pass, "again" the logits twice.
        row_weights: how often a row counts in dW, 0 for not at all; None for once.
        dtype: to compute logits and products in; None for what `F.linear` would under autocast.

    Raises:
        InputError: on a mode, reduction or smoothing that is none.
    """
    check_mode(mode)
    if reduction not in ("mean", "sum", "none"):
        raise InputError(f"reduction={reduction!r} must be mean, sum or none")
    if not 0.0 <= label_smoothing <= 1.0:
        raise InputError(f"label_smoothing={label_smoothing!r} must be in [0, 1]")
    terms = Terms(dtype or autocast_dtype(x), ignore_index, float(label_smoothing), reduction)
    if not torch.is_grad_enabled():
        with torch.autocast(x.device.type, enabled=False):
            return _reduced(_losses(_Head(x, weight, bias, labels, row_weights), terms), labels, terms)
    function = LinearCrossEntropy if mode == "forward" and reduction != "none" else LinearCrossEntropyAgain
    loss: Tensor = function.apply(x, weight, bias, labels, row_weights, terms)
    return loss


def check_mode(mode: object, argument: str = "mode") -> None:
    """Refuse what is no `Mode`.

    Raises:
        InputError: naming what is accepted.
    """
    if mode not in ("forward", "again"):
        raise InputError(f"{argument}={mode!r} must be forward or again")


class _Source(NamedTuple):
    """What logits are computed from: the head, its tensors and their versions when it ran, and the dtype."""

    head: LeanHead
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    versions: tuple[int, ...]
    dtype: torch.dtype

    def check(self) -> None:
        """Refuse to go on from other numbers than there were in the forward pass.

        Raises:
            InputError: if the tensors were changed in place.
        """
        if self.versions != _versions(self.x, self.weight, self.bias):
            raise InputError(
                "logits: read after the weight or the input of the output layer was changed (by the optimizer?); "
                "they would be others than in the forward pass: read outputs.logits before, or restore the head"
            )

    def compute(self) -> Tensor:
        """The logits, with their graph."""
        self.check()
        with torch.enable_grad(), torch.autocast(self.x.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.to(self.dtype)
            return F.linear(self.x.to(self.dtype), self.weight.to(self.dtype), bias)


def _versions(*tensors: Tensor | None) -> tuple[int, ...]:
    return tuple(t._version for t in tensors if t is not None)


class _Deferred:
    """One tensor of deferred logits, and what it was made from: a tree whose root is the output of the head."""

    def __init__(
        self,
        source: _Source,
        layout: Tensor,
        parent: _Deferred | None = None,
        make: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.source, self.layout, self.parent, self._make = source, layout, parent, make
        self.real: Tensor | None = None
        self._children: list[weakref.ref[_Deferred]] = []
        if parent is not None:
            parent._children.append(weakref.ref(self))

    def materialised(self) -> Tensor:
        """The real logits; from now on for the whole tree."""
        if self.real is None:
            root = self
            while root.parent is not None:
                root = root.parent
            root._become(root.source.compute())
        assert self.real is not None
        return self.real

    def _become(self, real: Tensor) -> None:
        self.real = real
        for reference in self._children:
            child = reference()
            if child is not None and child._make is not None:
                with torch.enable_grad():
                    child._become(child._make(real))


class _Defer(torch.autograd.Function):
    """Gives deferred logits the backward pass of a linear layer, for gradients that come by other ways than Python's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, deferred: _Deferred) -> DeferredLogits:
        """Tensor without numbers, of the layout that `F.linear` would return."""
        ctx.dtype, ctx.has_bias = deferred.source.dtype, bias is not None
        ctx.save_for_backward(x, weight)
        return DeferredLogits._make(deferred, x.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        """Of a linear layer."""
        x, weight = ctx.saved_tensors
        dz = dz.to(ctx.dtype)
        rows = dz.reshape(-1, dz.shape[-1])
        needs = ctx.needs_input_grad
        dx = (dz @ weight.to(ctx.dtype)).to(x.dtype) if needs[0] else None
        dw = (rows.T @ x.reshape(-1, x.shape[-1]).to(ctx.dtype)).to(weight.dtype) if needs[1] else None
        return dx, dw, rows.sum(0).to(weight.dtype) if ctx.has_bias and needs[2] else None, None


class DeferredLogits(Tensor):
    """Stands for logits until something needs their numbers (see the module)."""

    _deferred: _Deferred

    @staticmethod
    def _make(deferred: _Deferred, device: torch.device) -> DeferredLogits:
        layout = deferred.layout
        made: DeferredLogits = Tensor._make_wrapper_subclass(
            DeferredLogits, layout.shape, strides=layout.stride(), dtype=layout.dtype, device=device
        )
        made._deferred = deferred
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass what touches no number, hand a cross-entropy its pieces, and give all else the real logits."""
        kwargs = kwargs or {}
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        handler = _HANDLERS.get(func)
        if handler is not None and isinstance(args[0] if args else None, DeferredLogits):
            result = NotImplemented if args[0]._deferred.real is not None else handler(*args, **kwargs)
            if result is not NotImplemented:
                return result
        args, kwargs = tree_map_only(DeferredLogits, lambda t: t._deferred.materialised(), (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Real numbers for what got past Python."""
        args, kwargs = tree_map_only(
            DeferredLogits, lambda t: t._deferred.materialised().detach(), (args, kwargs or {})
        )
        return func(*args, **kwargs)


def is_deferred(logits: Tensor) -> bool:
    """Whether logits have not been computed."""
    return isinstance(logits, DeferredLogits) and logits._deferred.real is None


def _getter(name: str) -> Any:
    return getattr(Tensor, name).__get__


_METADATA = {
    *(_getter(name) for name in ("shape", "dtype", "device", "ndim", "requires_grad", "layout", "is_leaf")),
    *(
        _getter(name)
        for name in ("is_cuda", "is_sparse", "is_quantized", "is_meta", "is_mps", "is_xpu", "is_nested")
    ),
    *(
        Tensor.size,
        Tensor.dim,
        Tensor.ndimension,
        Tensor.numel,
        Tensor.__len__,
        Tensor.stride,
        Tensor.is_contiguous,
    ),
    *(Tensor.element_size, Tensor.get_device, Tensor.is_floating_point, Tensor.is_complex),
    *(torch.is_floating_point, torch.is_complex, torch.numel),
}
"""What is answered without numbers."""


def _child(
    logits: DeferredLogits,
    make: Callable[[Tensor], Tensor],
    of_x: Callable[[Tensor], Tensor] | None = None,
    layout: Tensor | None = None,
) -> DeferredLogits:
    """Deferred logits made from others by `make`: of other rows, which `of_x` takes from x, or in another dtype."""
    deferred, source = logits._deferred, logits._deferred.source
    source.check()
    layout = make(deferred.layout) if layout is None else layout
    if of_x is not None:
        x = of_x(source.x)
        source = source._replace(x=x, versions=_versions(x, source.weight, source.bias))
    child = _Deferred(source, layout, deferred, make)
    made: DeferredLogits = _Defer.apply(source.x, source.weight, source.bias, child)
    return made


def _reshape(name: str) -> Callable[..., Any]:
    def handler(logits: DeferredLogits, *shape: Any, **kwargs: Any) -> Any:
        shape = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        if kwargs or not shape or not all(isinstance(n, int) for n in shape) or logits.numel() == 0:
            return NotImplemented
        layout = getattr(logits._deferred.layout, name)(*shape)  # an error, where stock logits give one
        size = layout.shape
        if size[-1] != logits.shape[-1]:
            return NotImplemented
        return _child(
            logits,
            lambda real: getattr(real, name)(*size),
            lambda x: x.reshape(*size[:-1], x.shape[-1]),
        )

    return handler


def _flatten(logits: DeferredLogits, start_dim: int = 0, end_dim: int = -1) -> Any:
    dims = logits.dim()
    if end_dim % dims == dims - 1:
        return NotImplemented
    return _child(logits, lambda real: real.flatten(start_dim, end_dim), lambda x: x.flatten(start_dim, end_dim))


def _index(logits: DeferredLogits, index: Any) -> Any:
    parts = index if isinstance(index, tuple) else (index,)
    used = [_axes(part) for part in parts]
    if any(n is None for n in used):
        return NotImplemented
    total, dims = sum(n for n in used if n is not None), logits.dim()
    ellipsis = any(part is Ellipsis for part in parts)
    reaches_last = total > dims - 1 or (ellipsis and parts[-1] is not Ellipsis)
    if reaches_last and not (total <= dims and isinstance(parts[-1], slice) and parts[-1] == slice(None)):
        return NotImplemented
    layout = None
    if any(isinstance(part, Tensor) for part in parts):  # without numbers only their shape is known
        size = logits._deferred.source.x[index].shape[:-1]
        layout = torch.empty(*size, logits.shape[-1], dtype=logits.dtype, device="meta")
    return _child(logits, lambda real: real[index], lambda x: x[index], layout)


def _axes(part: Any) -> int | None:
    """How many axes a part of an index takes; None for what is not known."""
    if part is None or part is Ellipsis:
        return 0
    if isinstance(part, slice) or (isinstance(part, int) and not isinstance(part, bool)):
        return 1
    if isinstance(part, Tensor) and part.dtype == torch.bool:
        return part.ndim
    if isinstance(part, Tensor) and part.dtype in (torch.int64, torch.int32):
        return 1
    return None


def _contiguous(logits: DeferredLogits, **kwargs: Any) -> Any:
    return NotImplemented if kwargs else _child(logits, lambda real: real.contiguous(), lambda x: x.contiguous())


def _widened(logits: DeferredLogits, dtype: torch.dtype) -> Any:
    if dtype == logits.dtype:
        return logits
    if not dtype.is_floating_point or torch.promote_types(dtype, logits.dtype) != dtype:
        return NotImplemented
    return _child(logits, lambda real: real.to(dtype))


def _to(logits: DeferredLogits, *args: Any, **kwargs: Any) -> Any:
    dtype, device = logits.dtype, logits.device
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, (torch.device, str)):
            device = torch.device(value)
        else:  # a tensor, or copy=True
            return NotImplemented
    if device != logits.device:
        return NotImplemented
    return _widened(logits, dtype)


def _cross_entropy(*args: Any, **kwargs: Any) -> Any:
    asked = _CROSS_ENTROPY.bind(*args, **kwargs)
    asked.apply_defaults()
    logits, labels = asked.arguments["input"], asked.arguments["target"]
    plain = (
        asked.arguments["weight"] is None
        and asked.arguments["size_average"] is None
        and asked.arguments["reduce"] is None
        and asked.arguments["reduction"] in ("mean", "sum", "none")
    )
    whole = isinstance(labels, Tensor) and labels.dtype == torch.int64 and labels.shape == logits.shape[:1]
    if not plain or not whole or isinstance(labels, DeferredLogits) or logits.dim() != 2:
        return NotImplemented
    return logits._deferred.source.head.loss(
        logits,
        labels,
        ignore_index=asked.arguments["ignore_index"],
        label_smoothing=asked.arguments["label_smoothing"],
        reduction=asked.arguments["reduction"],
    )


_CROSS_ENTROPY = inspect.signature(F.cross_entropy)
_HANDLERS: dict[Any, Callable[..., Any]] = {
    Tensor.view: _reshape("view"),
    Tensor.reshape: _reshape("reshape"),
    torch.reshape: _reshape("reshape"),
    Tensor.flatten: _flatten,
    torch.flatten: _flatten,
    Tensor.__getitem__: _index,
    Tensor.contiguous: _contiguous,
    Tensor.float: lambda logits: _widened(logits, torch.float32),
    Tensor.double: lambda logits: _widened(logits, torch.float64),
    Tensor.to: _to,
    F.cross_entropy: _cross_entropy,
}
"""What takes deferred logits first, and how; `NotImplemented` for what it cannot defer."""


class LeanHead(nn.Linear):
    """The output layer of a language model; a linear layer becomes one, and stock again, by a change of its class.

    Attributes:
        mode: see `linear_cross_entropy`.
        estimator: of dW, a row design; None for the exact one.
        min_elements: inputs with fewer numbers than this have an exact dW.
        context: of the model, from which a sampled dW draws; None draws from torch's default generator.
        path: its name in the model.
    """

    mode: Mode = "forward"
    estimator: RowEstimator | None = None
    min_elements: int = 0
    context: ForwardContext | None = None
    path: str = ""

    def forward(self, input: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch V"]:
        """Deferred logits in training, real ones else."""
        if not self._defers(input):
            return super().forward(input)
        weight, bias = self.weight, self.bias
        source = _Source(self, input, weight, bias, _versions(input, weight, bias), autocast_dtype(input))
        layout = torch.empty(*input.shape[:-1], len(weight), dtype=source.dtype, device="meta")
        logits: Tensor = _Defer.apply(input, weight, bias, _Deferred(source, layout))
        return logits

    def _defers(self, input: Tensor) -> bool:
        return (
            self.training
            and type(self) is LeanHead  # not sharded by itself
            and torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and _functorch.peek_interpreter_stack() is None
            and not is_parametrized(self)
            and (input.requires_grad or self.weight.requires_grad)
            and (input.dtype == self.weight.dtype or torch.is_autocast_enabled(input.device.type))
            and type(self.weight).__name__ != "DTensor"
            and input.ndim > 1
        )

    def loss(self, logits: DeferredLogits, labels: Int[Tensor, " n"], **options: Any) -> Tensor:
        """Cross-entropy of deferred logits `[n, V]`, in the dtype that the stock function would return."""
        source = logits._deferred.source
        source.check()
        row_weights = self._row_weights(source.x, labels, options["ignore_index"])
        loss = linear_cross_entropy(
            source.x, source.weight, source.bias, labels,
            mode=self.mode, row_weights=row_weights, dtype=source.dtype, **options,
        )  # fmt: skip
        kind = source.x.device.type
        return loss.to(_working(logits.dtype) if torch.is_autocast_enabled(kind) else logits.dtype)

    def _row_weights(self, x: Tensor, labels: Tensor, ignore_index: int) -> Float[Tensor, " n"] | None:
        """How often each row counts in dW; a row without a label is never drawn."""
        if self.estimator is None or not self.weight.requires_grad or not torch.is_grad_enabled():
            return None
        if x.numel() < self.min_elements:
            return None
        with torch.no_grad():
            counted = (labels != ignore_index).nonzero().squeeze(1)
            rows = x.detach()[counted]
            scores = row_norms(rows)
            if not len(rows) or not bool(torch.isfinite(scores).all()):
                return None  # exact: NaN goes where it goes in the stock layer
            current = None if self.context is None else self.context.current
            generator = None if current is None else current.generator(self.path, x.device)
            saved = self.estimator.compress(rows, scores=scores, generator=generator)
            weights = torch.zeros(len(x), dtype=_working(x.dtype), device=x.device)
            return weights.index_add_(0, counted[saved.indices.long()], saved.weights.to(weights.dtype))


def set_lean_head(
    model: nn.Module, *, mode: Mode = "forward", estimator: str | Estimator | None = None
) -> dict[str, str]:
    """Turn the output layers of the language models within a model into lean ones, in place.

    Parameters, hooks and state-dict keys stay. Output layers are those that `get_output_embeddings` names.

    Args:
        model: any module.
        mode: "forward" or "again" (see the module).
        estimator: a row design for dW, or its spec; None for what a layer has, and for the exact one in a stock layer.

    Returns:
        Name of an output layer → why it stays stock; of the model itself where there is none. Empty if all are lean.

    Raises:
        InputError: on another mode, or an estimator that draws no rows: what it keeps of X needs dY whole.
    """
    check_mode(mode)
    design = make(estimator) if isinstance(estimator, str) else estimator
    if design is not None and not isinstance(design, RowEstimator):
        raise InputError(f"estimator={estimator!r}: the output layer is computed by rows; choose a row design")
    model = unwrapped(model)
    heads = _heads(model)
    if not heads:
        return {"": f"{type(model).__name__} has no output layer by get_output_embeddings"}
    reasons = {}
    for name, head in heads.items():
        reason = _reason(head)
        if reason is not None:
            reasons[name] = reason
            continue
        its_own = design or getattr(head, "estimator", None)
        if isinstance(head, EstimatedWeightGrad):
            make_stock(head)
        set_class(head, LeanHead)
        assert isinstance(head, LeanHead)
        head.mode, head.estimator, head.path = mode, its_own, name
        head.context = ForwardContext.of(model)
    return reasons


def restore_head(model: nn.Module) -> list[str]:
    """Undo `set_lean_head`.

    Returns:
        Names of the layers that are stock again.
    """
    names = []
    for name, module in unwrapped(model).named_modules():
        if own_class(module) is LeanHead:
            for attribute in ("mode", "estimator", "min_elements", "context", "path"):
                vars(module).pop(attribute, None)
            set_class(module, nn.Linear)
            names.append(name)
    return names


def takes(layer: nn.Module, estimator: Estimator) -> bool:
    """Whether a layer can have its dW by an estimator: a lean output layer by row designs alone."""
    return not isinstance(layer, LeanHead) or isinstance(estimator, RowEstimator)


def _heads(model: nn.Module) -> dict[str, nn.Module]:
    """Output layers by name."""
    names = {module: name for name, module in model.named_modules()}
    found = {}
    for module in model.modules():
        ask = getattr(module, "get_output_embeddings", None)
        head = ask() if callable(ask) else None
        if isinstance(head, nn.Module) and head in names:
            found[names[head]] = head
    return found


def _reason(head: nn.Module) -> str | None:
    kind = own_class(head)
    if type(head) is not kind:
        return f"{type(head).__name__}: sharded or parametrized"
    if isinstance(head, EstimatedWeightGrad) and head.stock is nn.Linear:
        if isinstance(head.estimator, RowEstimator):
            return None
        return f"its dW is by {head.estimator!r}, which draws no rows"
    if kind not in (nn.Linear, LeanHead):
        return f"{kind.__name__} is no plain nn.Linear"
    if "forward" in vars(head):
        return "its forward was replaced on the instance"
    return None
