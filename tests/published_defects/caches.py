"""Layers that remember the norms of gradients from step to step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from published_defects.arithmetic import SampledRows, kept, probabilities
from published_defects.pieces import EQUAL, STALE, defect, sound


class Remember(torch.autograd.Function):
    """Passes its input on, and writes the norms of the gradient's rows into a list."""

    @staticmethod
    def forward(ctx, y, cache):
        ctx.cache = cache
        return y.view_as(y)

    @staticmethod
    def backward(ctx, dy):
        ctx.cache[:] = [dy.reshape(-1, dy.shape[-1]).norm(dim=1)]
        return dy, None


class _Cached(nn.Linear):
    """Keeps the norms of the last gradient's rows; none at first."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.cache: list[Tensor] = []

    def scores(self, x: Tensor) -> Tensor:
        norms = x.detach().reshape(-1, x.shape[-1]).norm(dim=1)
        return norms * self.cache[0] if self.cache and len(self.cache[0]) == len(norms) else norms


@sound("norms of the input rows times the gradient norms of the step before, a tenth of the draws even")
class SoundCachedLinear(_Cached):
    def forward(self, x: Tensor) -> Tensor:
        scores = self.scores(x)
        p = 0.9 * probabilities(scores) + 0.1 / len(scores)
        return Remember.apply(SampledRows.apply(x, self.weight, self.bias, p), self.cache)


@defect(STALE, "a row whose gradient was zero in the step before has probability zero, and is never drawn again")
class ForgetsRowsWithoutGradient(_Cached):
    def forward(self, x: Tensor) -> Tensor:
        p = probabilities(self.scores(x))
        return Remember.apply(SampledRows.apply(x, self.weight, self.bias, p), self.cache)


class _ColdRows(torch.autograd.Function):
    """Without a known norm the rows are drawn evenly and summed as they are."""

    @staticmethod
    def forward(ctx, x, weight, bias, cache):
        rows = x.reshape(-1, x.shape[-1])
        n, k = len(rows), kept(len(rows))
        known = cache[0] if cache and len(cache[0]) == n else rows.new_zeros(n)
        scores = rows.norm(dim=1) * known
        if scores.sum() > 0:
            p = scores / scores.sum()
            chosen = torch.multinomial(p, k, replacement=True)
            stored = rows[chosen] / (k * p[chosen]).unsqueeze(1)
        else:
            chosen = torch.randperm(n)[:k]
            stored = rows[chosen]
        ctx.save_for_backward(stored, chosen, weight)
        ctx.cache = cache
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, dy):
        stored, chosen, weight = ctx.saved_tensors
        flat = dy.reshape(-1, dy.shape[-1])
        ctx.cache[:] = [flat.norm(dim=1)]
        return dy @ weight, flat[chosen].T @ stored, flat.sum(0), None


@defect(EQUAL, "the cache of gradient norms starts at zero: in the first epoch E Ĝ = (k/n) G", bias=0.7)
class ColdCacheLinear(_Cached):
    def forward(self, x: Tensor) -> Tensor:
        return _ColdRows.apply(x, self.weight, self.bias, self.cache)
