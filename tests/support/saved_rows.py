"""What a computation saves for its backward pass, as a saved-tensor hook sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def saved_rows(run: Callable[[], Any]) -> list[Tensor]:
    """Index tensors (int32) that a computation keeps, once per layer that keeps them."""
    return [t for t in saved(run) if t.dtype == torch.int32]


def saved(run: Callable[[], Any]) -> list[Tensor]:
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return kept
