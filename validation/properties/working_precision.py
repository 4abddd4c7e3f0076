"""The precision that a piece of code computes in, whatever dtype it is given and returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# from the widest to the narrowest; what is narrower is a code, not a precision that anything is computed in
PRECISIONS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class _Narrowest(TorchDispatchMode):
    """Notes the narrowest of these precisions among the results of operations on as many numbers as there are rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.found = torch.float64

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.dtype in PRECISIONS and leaf.numel() >= self.rows:
                self.found = max(self.found, leaf.dtype, key=PRECISIONS.index)
        return result


def working_precision(call: Callable[[], object], rows: int) -> torch.dtype:
    """The narrowest precision that one call computes at least `rows` numbers in.

    Every operation of torch is seen, those of the backward pass included; what is computed outside torch is not.

    Args:
        call: one call of the code.
        rows: of its input; results of fewer numbers, such as scalars, do not count.

    Returns:
        float64, float32, float16 or bfloat16.
    """
    mode = _Narrowest(rows)
    with mode:
        call()
    return mode.found
