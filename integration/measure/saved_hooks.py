"""Whether a forward pass can be looked at by saved-tensor hooks, and how they come off again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from wtacrs.integration.context.recomputation import backward_under_way
from wtacrs.integration.measure.saved_storages import storages_of

_hooks: Any = torch._C._autograd
Pack = Callable[[Tensor], Any]
Unpack = Callable[[Any], Tensor]


def push(pack: Pack, unpack: Unpack) -> None:
    """Put hooks on top of the stack of this thread."""
    _hooks._push_saved_tensors_default_hooks(pack, unpack)


def pop(pack: Pack) -> None:
    """Take hooks off the stack, from under those that came later and stay."""
    later = []
    while (top := _hooks._top_saved_tensors_default_hooks(True)) is not None:
        _hooks._pop_saved_tensors_default_hooks()
        if top[0] == pack:
            break
        later.append(top)
    for pair in reversed(later):
        _hooks._push_saved_tensors_default_hooks(*pair)


def foreign_hooks(ours: Pack | None = None) -> str | None:
    """Whose saved-tensor hooks hide what is kept; those of checkpointing keep nothing, within a model."""
    if not _hooks._saved_tensors_hooks_is_enabled():
        return "saved-tensor hooks are disabled here"
    top = _hooks._top_saved_tensors_default_hooks(True)
    if top is None or top[0] == ours or (ours is not None and top[0].__module__ == "torch.utils.checkpoint"):
        return None
    name = getattr(top[0], "__qualname__", type(top[0]).__name__)
    return f"saved-tensor hooks are active ({name}), which alone know what they keep"


def compiled(model: nn.Module) -> str | None:
    """Whether a part of a model is, so that hooks in it would be compiled too."""
    for module in model.modules():
        if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
            return "the model, or a part of it, is compiled"
    return None


def in_a_backward_pass() -> bool:
    """Whether this thread runs one."""
    return backward_under_way() is not None


def references(tensors: Iterable[Tensor]) -> set[StorageWeakRef]:
    """The storages of tensors, by weak references."""
    return {reference for tensor in tensors for reference in storages_of(tensor)}
