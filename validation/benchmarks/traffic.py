"""What a piece of code asks of torch: operations, and the bytes that they read and write; no timing.

A fused kernel moves less than the operations that it replaces, and a pass over x that was added by mistake shows here at
once, on any machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# read only what is picked: as much as they return
_GATHERING = {"index_select", "gather", "embedding", "index", "take"}
# write nothing
_FREE = {"empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "detach", "resize_", "set_"}


class Traffic(TorchDispatchMode):
    """Counts what runs under it; views and empty tensors are free.

    Attributes:
        operations: number of operations.
        moved: bytes of the tensors that they read and write; a number that is broadcast counts once.
        names: how often each operation ran.

    >>> import torch
    >>> a = torch.ones(10, 10)
    >>> with Traffic() as traffic:
    ...     _ = (a + 1).T.mul_(2)
    >>> traffic.operations, traffic.moved  # the sum reads and writes a, the product in place too
    (2, 1600)
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.moved = 0
        self.names: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if not func.is_view and name not in _FREE:
            self.operations += 1
            self.names[name] = self.names.get(name, 0) + 1
            written = sum(map(_bytes, _tensors(found)))
            read = [_bytes(tensor) for tensor in _read(func, args, kwargs)]
            if name in _GATHERING and read:
                read[0] = min(read[0], written)
            self.moved += written + sum(read)
        return found


def _read(func: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """Arguments that are read; those that are only written, as in `out=`, are not."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.name in kwargs:
            value = kwargs[argument.name]
        elif place < len(args):
            value = args[place]
        else:
            continue
        if not (argument.kwarg_only and argument.alias_info is not None and argument.alias_info.is_write):
            yield from _tensors(value)


def _tensors(value: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def _bytes(tensor: Tensor) -> int:
    size = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        size *= length if stride else min(length, 1)
    return size
