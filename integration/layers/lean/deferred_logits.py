"""Logits that are computed only if something needs their numbers.

`DeferredLogits` is a tensor without numbers. It passes through what does not touch a number: shape, dtype and device,
views and indices of the leading axes, `contiguous`, and casts to a wider type. `F.cross_entropy` with class labels
consumes it a piece at a time (see `cross_entropy`), with `ignore_index`, `label_smoothing`, and every reduction.
Anything else gets the real logits, which are computed once, with their graph, and stand for it from then on; so do
class weights and probabilities as labels. Views alive at that moment become views of them, so that work in place has
the effect it has on stock logits. Functions that look past Python (`Function.apply`, C++) see real logits too, and
their gradient goes the way of any linear layer.

Real logits are computed from the weight as it is then: after the optimizer changed the weight this is refused, since they
would silently be another model's.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_map_only

from wtacrs.estimators import InputError


class LossHead(Protocol):
    """An output layer with its loss."""

    def loss(self, logits: DeferredLogits, labels: Int[Tensor, " n"], **options: Any) -> Tensor:
        """Cross-entropy of deferred logits `[n, V]`."""


class Source(NamedTuple):
    """What logits are computed from: the head, its tensors and their versions when it ran, and the dtype."""

    head: LossHead
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
        if self.versions != versions_of(self.x, self.weight, self.bias):
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


def versions_of(*tensors: Tensor | None) -> tuple[int, ...]:
    """How often each has been changed in place."""
    return tuple(t._version for t in tensors if t is not None)


class Deferred:
    """One tensor of deferred logits, and what it was made from: a tree whose root is the output of the head."""

    def __init__(
        self,
        source: Source,
        layout: Tensor,
        parent: Deferred | None = None,
        make: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.source, self.layout, self.parent, self._make = source, layout, parent, make
        self.real: Tensor | None = None
        self._children: list[weakref.ref[Deferred]] = []
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


class Defer(torch.autograd.Function):
    """Gives deferred logits the backward pass of a linear layer, for gradients that come by other ways than Python's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, deferred: Deferred) -> DeferredLogits:
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

    _deferred: Deferred

    @staticmethod
    def _make(deferred: Deferred, device: torch.device) -> DeferredLogits:
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

    def gradient_passes(self) -> Tensor:
        """What the gradient passes on its way into the model: the real logits, or what they would be computed from."""
        deferred = self._deferred
        return deferred.source.x if deferred.real is None else deferred.real

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
        source = source._replace(x=x, versions=versions_of(x, source.weight, source.bias))
    child = Deferred(source, layout, deferred, make)
    made: DeferredLogits = Defer.apply(source.x, source.weight, source.bias, child)
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
