"""`NoValues`: tensors of the CPU that have shapes and storages, and no numbers.

The code that runs is the real one, with the operators and the branches of the CPU. Where Python asks for a number, the
answer is fixed:

- a bool is True, and a number is 1: what is asked is whether values are finite, in range, or without padding;
- `torch.equal` and `torch.allclose` hold wherever shapes agree;
- `nonzero` finds every element, the most that it can: every label counts, every row is drawn. Where some label never
  counts, as the last one of a text that a decoder goes on with, it finds every element but one.

So the bytes are those of a batch without padding whose labels all count. Labels that are ignored make them an upper
bound. Padding makes some models keep masks which they leave out where all positions are real; those come on top.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_impls import op_implementations_checks
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
    in_kernel_invocation_manager,
)
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from wtacrs.estimators.core.errors import InputError

_aten = torch.ops.aten
_CPU = torch.device("cpu")
_ADDITIONS = (_aten.add.Tensor, _aten.add_.Tensor)


class NoValues(FakeTensorMode):
    """Makes every operator work on shapes alone; what is made under it has no numbers.

    Args:
        all_count: whether every label counts.

    Attributes:
        answers: tells `has_values` that Python may ask for numbers, and `has_answers` that code for plain tensors runs.

    Raises:
        InputError: where an operator has a shape or a number that no fixed answer gives.

    >>> with NoValues():
    ...     x = torch.ones(10**6, 10**6) * 2
    ...     found = x.shape, bool(x.isfinite().all()), x[0].nonzero().shape
    >>> found
    (torch.Size([1000000, 1000000]), True, torch.Size([1000000, 1]))
    """

    answers = True

    def __init__(self, *, all_count: bool = True) -> None:
        super().__init__(allow_fallback_kernels=False)
        self.all_count = all_count
        _with_shapes()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator on shapes, and answer where that cannot be done."""
        if func is _aten._fused_sdp_choice.default:  # of the CPU, which torch would tell of no device
            return _attention_kernel(args, kwargs or {})
        if func in _ADDITIONS and _is_sparse(args[1]) and not _is_sparse(args[0]):
            return (
                args[0] if func is _aten.add_.Tensor else torch.empty_like(args[0])
            )  # no rule for shapes is there
        if _is_plain(func) and self._takes(args):
            return self._on_shapes(func, args, kwargs or {})
        try:
            return super().__torch_dispatch__(func, types, args, kwargs or {})
        except (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException) as error:
            return self._answer(func, args, error)

    def _takes(self, args: Any) -> bool:
        """Whether these are tensors of this mode, of which none has a number that the mode knows."""
        tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        return bool(tensors) and all(
            isinstance(tensor, FakeTensor) and tensor.constant is None and tensor.fake_device == _CPU
            for tensor in tensors
        )

    def _on_shapes(self, func: Any, args: Any, kwargs: Any) -> Any:
        """By the operator's own rule for shapes, without the questions that a compiler asks: ten times as fast."""
        with in_kernel_invocation_manager(self):
            found = func(*args, **kwargs)
        return tree_map_only(
            Tensor, lambda made: made if isinstance(made, FakeTensor) else FakeTensor(self, made, _CPU), found
        )

    def _answer(self, func: Any, args: Any, error: Exception) -> Any:
        if func is _aten._local_scalar_dense.default:
            kind = args[0].dtype
            return True if kind == torch.bool else 1.0 if kind.is_floating_point else 1
        if func in (_aten.equal.default, _aten.allclose.default):
            return args[0].shape == args[1].shape
        if func is _aten.nonzero.default:
            found = args[0].numel() if self.all_count else max(args[0].numel() - 1, 0)
            return args[0].new_empty((found, args[0].ndim), dtype=torch.int64)
        raise InputError(
            f"{func}: what it returns depends on numbers, which a simulated step does not have"
        ) from error


def _is_sparse(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.sparse_coo


@cache
def _is_plain(func: Any) -> bool:
    """Whether an operator has a rule for shapes, and the mode none of its own."""
    known = any(check(func) for check, _ in op_implementations_checks)
    return not known and func.name() in _with_shapes()


@cache
def _with_shapes() -> frozenset[str]:
    """Names of the operators that are registered with a rule for shapes."""
    return frozenset(torch._C._dispatch_get_registrations_for_dispatch_key("Meta"))


def _attention_kernel(args: Any, kwargs: Any) -> int:
    """The kernel that attention takes on the CPU, asked with small tensors of the same kind."""
    with _disable_current_modes():
        given = [_small(tensor, (-3, -1)) for tensor in args[:3]]
        others, kwargs = tree_map_only(Tensor, lambda mask: _small(mask, (-3,)), (args[3:], kwargs))
        return int(_aten._fused_sdp_choice.default(*given, *others, **kwargs))


def _small(tensor: Tensor, whole: tuple[int, ...]) -> Tensor:
    """A tensor with numbers and of size 2 at most, but for the axes that stay `whole`."""
    sizes = [n if axis in whole else min(n, 2) for axis, n in enumerate(tensor.shape, -tensor.ndim)]
    made = torch.zeros(sizes, dtype=tensor.dtype)
    made = made if tensor.ndim < 2 or tensor.stride(-1) == 1 else made.mT.contiguous().mT
    return made.requires_grad_(tensor.requires_grad)


@contextlib.contextmanager
def without_values(mode: NoValues) -> Iterator[None]:
    """Enter the mode, for models of transformers too: they are told that this is a step, and no trace for a compiler.

    Where a compiler traces, they leave out questions about padding, and keep masks that a real step does not have.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError):
            import transformers.utils.import_utils as asked

            stack.enter_context(mock.patch.object(asked, "is_fake_tensor", return_value=False))
        stack.enter_context(mode)
        yield


def fill_without_values(module: nn.Module) -> None:
    """Give a module on the meta device tensors of the mode that is active, in the place of its own; ties stay."""
    known: dict[int, Tensor] = {}

    def filled(tensor: Any) -> Any:
        if not isinstance(tensor, Tensor) or not tensor.is_meta:
            return tensor
        if id(tensor) not in known:
            new = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            if isinstance(tensor, nn.Parameter):
                new = nn.Parameter(new, requires_grad=tensor.requires_grad)
            known[id(tensor)] = new
        return known[id(tensor)]

    with torch.no_grad():
        for part in module.modules():
            for values in (part._parameters, part._buffers, vars(part)):
                values.update({name: filled(value) for name, value in values.items() if isinstance(value, Tensor)})
