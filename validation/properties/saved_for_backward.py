"""How many bytes one forward pass keeps alive for its backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def bytes_for_backward(module: nn.Module, x: Float[Tensor, "n d"]) -> int:
    """Bytes of all storages that the graph of `module(x)` holds, each counted once, parameters and buffers left out.

    Seen are the tensors that go through `save_for_backward` (saved-tensor hooks) and those that a Python autograd
    Function leaves on its context. A view counts with all of the storage that it keeps alive.

    Args:
        module: a layer.
        x: its input; it counts if it is kept.
    """
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output in its own graph would be a reference cycle, and never be freed

    rows = x.detach().clone().requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        y = module(rows)
    note_contexts(y.grad_fn, note)
    own = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    return sum(size for pointer, size in storages.items() if pointer not in own)


def note_contexts(node: Any, note: Callable[[Tensor], Any]) -> None:
    """Show every tensor that is an attribute of a node of a graph, alone or in tuples and lists."""
    waiting, seen = [node], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for value in getattr(node, "__dict__", {}).values():
            for item in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(item, Tensor):
                    note(item)
        waiting.extend(following for following, _ in node.next_functions)
