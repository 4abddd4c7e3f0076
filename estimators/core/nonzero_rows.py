"""Rows of dY that are exactly zero: they add nothing to a product, and need not be multiplied.

Padding has such rows wherever the loss does not look at it, whatever a mask says. Where enough rows are zero the others
are gathered and multiplied alone: the result is the same sum without its zero terms, so that no variance is added.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wtacrs.estimators.core.scores import has_values

_LEAST = 256
"""Rows; with fewer of them nothing is saved."""
_COST_OF_GATHERING = 60.0
"""Of moving a number, in multiply-accumulates of a product, measured on a CPU in fp32."""
_START = 16
"""Numbers at the start of a row, a cache line of fp32."""
_SLOWER = 0.05
"""Share of its time by which a product of gathered rows is slower than one of as many rows that lie together."""


def nonzero_rows(dy: Float[Tensor, "n m"], width: int) -> Int[Tensor, " l"] | None:
    """The rows of dY with a number that is not zero, if it pays to multiply them alone; None otherwise.

    It pays where the zero rows are more than a share of `0.05 + 60 (1/m + 1/width)`: gathering moves `m + width` numbers
    of a row, a product does `m · width` operations. NaN is not zero. Always None where the host would have to wait for
    the values, and in what is compiled.

    Args:
        dy: output gradients.
        width: columns that every row is multiplied with.
    """
    if not has_values(dy):  # first: what is compiled must not be compiled anew for every size
        return None
    n, m = dy.shape
    if n < _LEAST or not m or not width:
        return None
    # a row of zeros starts with zeros: only such rows are looked at as a whole. Behind a ReLU half of all start with one
    least = n * (_SLOWER + _COST_OF_GATHERING * (1 / m + 1 / width))
    candidates = (dy[:, 0] == 0).nonzero().squeeze(1)
    for columns in (_START, m):
        if candidates.shape[0] <= least:
            return None
        candidates = candidates[(dy[:, :columns].index_select(0, candidates) == 0).all(1)]
    if candidates.shape[0] <= least:
        return None
    return torch.ones(n, dtype=torch.bool, device=dy.device).index_fill(0, candidates, False).nonzero().squeeze(1)
