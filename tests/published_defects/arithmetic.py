"""What the pieces share; nothing here uses the estimators that are under test elsewhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FRACTION = 0.3


def kept(n: int) -> int:
    """Rows that are kept of n."""
    return min(n, max(1, int(FRACTION * n)))


def probabilities(scores: Tensor) -> Tensor:
    """Scores divided by their sum; equal where they are all zero."""
    total = scores.sum()
    return scores / total if total > 0 else torch.full_like(scores, 1.0 / len(scores))


def joint(x: Tensor, dy: Tensor) -> Tensor:
    """Products of the norms of the rows."""
    return x.norm(dim=1) * dy.norm(dim=1)


def weighted(x: Tensor, dy: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Σ wᵢ dyᵢ xᵢᵀ over these rows."""
    return (dy[rows] * weights.unsqueeze(1)).T @ x[rows]


def nothing(x: Tensor, dy: Tensor) -> bool:
    """Whether there is no row, or every row is zero in one of the factors."""
    return len(x) == 0 or not bool(joint(x, dy).any())


def sampled(x: Tensor, dy: Tensor) -> Tensor:
    """Sound: k rows drawn with replacement from p ∝ joint norms, with weights 1/(k p)."""
    if nothing(x, dy):
        return dy.T @ x
    k, p = kept(len(x)), probabilities(joint(x, dy))
    rows = torch.multinomial(p, k, replacement=True)
    return weighted(x, dy, rows, 1.0 / (k * p[rows]))


class SampledRows(torch.autograd.Function):
    """Sound: keeps k weighted rows of the input, drawn in the forward pass from p."""

    @staticmethod
    def forward(ctx, x, weight, bias, p):
        rows = x.reshape(-1, x.shape[-1])
        k = kept(len(rows))
        chosen = torch.multinomial(p, k, replacement=True)
        ctx.save_for_backward(rows[chosen] / (k * p[chosen]).unsqueeze(1), chosen, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, dy):
        rows, chosen, weight = ctx.saved_tensors
        flat = dy.reshape(-1, dy.shape[-1])
        return dy @ weight, flat[chosen].T @ rows, flat.sum(0), None
