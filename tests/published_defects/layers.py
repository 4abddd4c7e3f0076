"""Linear layers that estimate one or several of dW, dX and db."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from published_defects.arithmetic import SampledRows, kept, probabilities
from published_defects.pieces import ADVANCES, BIAS_GRADIENT, DEEP, EQUAL, HEAVY, ZEROS, defect, sound


@sound("the stock layer under another name")
class ExactLinear(nn.Linear):
    pass


@sound("rows of the input drawn by their norms, weights 1/(k p)")
class SoundCRSLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        norms = x.detach().reshape(-1, x.shape[-1]).norm(dim=1)
        return SampledRows.apply(x, self.weight, self.bias, probabilities(norms))


class _ControlledVariance(torch.autograd.Function):
    """Rows of dY are kept by their norms before all three gradients; dW then sums what is left."""

    @staticmethod
    def forward(ctx, x, weight, bias, weights):
        ctx.save_for_backward(x, weight)
        ctx.weights = weights
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        flat = dy.reshape(-1, dy.shape[-1])
        # half of the rows or more: at equal norms a row is kept with probability 0.6
        norms = flat.norm(dim=1)
        keep = 0.6 * norms / norms.mean() if bool(norms.any()) else torch.ones_like(norms)
        thinned = flat * ctx.weights(keep).unsqueeze(1)
        return (thinned @ weight).reshape(x.shape), thinned.T @ x.reshape(-1, x.shape[-1]), thinned.sum(0), None


def divided(keep: Tensor) -> Tensor:
    """1/q with probability q = min(1, keep), else 0."""
    clipped = keep.clamp(max=1.0)
    return torch.where(torch.rand_like(keep) < clipped, 1.0 / clipped, 0.0)


def divided_before_clipping(keep: Tensor) -> Tensor:
    """1/keep with probability min(1, keep): rows that are surely kept count 1/keep."""
    return torch.where(torch.rand_like(keep) < keep, 1.0 / keep, 0.0)


@sound("rows of dY kept by their norms before dX, dW and db, each divided by its probability")
def sound_controlled_variance(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _ControlledVariance.apply(x, weight, bias, divided)


@defect(
    HEAVY, "rows of dY kept with probabilities clipped at 1, but divided by what they were before: dX is biased"
)
def clipped_variance_control(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _ControlledVariance.apply(x, weight, bias, divided_before_clipping)


class _Rows(torch.autograd.Function):
    """Keeps some rows, the same factor on all of them, and scales db."""

    @staticmethod
    def forward(ctx, x, weight, bias, rows, factor, bias_factor):
        ctx.save_for_backward(x.reshape(-1, x.shape[-1])[rows] * factor, rows, weight)
        ctx.bias_factor = bias_factor
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, dy):
        stored, rows, weight = ctx.saved_tensors
        flat = dy.reshape(-1, dy.shape[-1])
        return dy @ weight, flat[rows].T @ stored, flat.sum(0) * ctx.bias_factor, None, None, None


def some_rows(n: int) -> Tensor:
    """k distinct rows of n."""
    return torch.randperm(n)[: kept(n)]


@defect(BIAS_GRADIENT, "the factor n/k of the sampled rows is put on db too, which sums all rows")
def bias_scaled_too(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    n = x.numel() // max(x.shape[-1], 1)
    return _Rows.apply(x, weight, bias, some_rows(n), n / kept(n), n / kept(n))


@defect(
    DEEP,
    "the factor n/k counts the first axis alone, which is n only for an input without a batch",
    bias=1 - 1 / 256,
)
def counts_the_first_axis(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    n = x.numel() // max(x.shape[-1], 1)
    return _Rows.apply(x, weight, bias, some_rows(n), x.shape[0] / kept(n), 1.0)


def in_blocks(x: Tensor, weight: Tensor, bias: Tensor, size: int) -> Tensor:
    """Draws whole blocks of this many rows, and never reaches the last one where it is not whole."""
    n = x.numel() // max(x.shape[-1], 1)
    blocks = n // size
    chosen = torch.randperm(blocks)[: kept(blocks)] if blocks else torch.arange(0)
    rows = (chosen.unsqueeze(1) * size + torch.arange(size)).flatten()
    return _Rows.apply(x, weight, bias, rows, blocks / max(len(chosen), 1), 1.0)


# 512 rows are ten blocks and 32 rows
@defect(EQUAL, "draws whole blocks of 48 rows, and never reaches the last block where it is not whole")
def whole_blocks_of_48(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return in_blocks(x, weight, bias, 48)


# 512 and 4096 rows are whole blocks, 511 rows are seven blocks and 63 rows
@defect(ZEROS, "draws whole blocks of 64 rows: no bias, unless the number of rows is no multiple of 64")
def whole_blocks_of_64(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return in_blocks(x, weight, bias, 64)


@defect(ADVANCES, "keeps every third row, always the same ones, without weights")
class DeterministicMask(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x.reshape(-1, x.shape[-1])[::3].clone(), weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, dy):
        rows, weight = ctx.saved_tensors
        flat = dy.reshape(-1, dy.shape[-1])
        return dy @ weight, flat[::3].T @ rows, flat.sum(0)
