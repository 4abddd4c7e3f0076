"""Defects of published code, each written afresh from its description, and sound pieces that are not ours.

Nothing here uses the estimators that are under test elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from wtacrs.estimators import Estimator, Traits, sampling_scores
from wtacrs.estimators.core.checks import check_matrix, check_rows_agree

FRACTION = 0.3


def kept(n: int) -> int:
    """Rows that are kept of n."""
    return min(n, max(1, int(FRACTION * n)))


def probabilities(scores: torch.Tensor) -> torch.Tensor:
    """Scores divided by their sum; equal where they are all zero."""
    total = scores.sum()
    return scores / total if total > 0 else torch.full_like(scores, 1.0 / len(scores))


def joint(x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    return x.norm(dim=1) * dy.norm(dim=1)


def weighted(x: torch.Tensor, dy: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (dy[rows] * weights.unsqueeze(1)).T @ x[rows]


# --- sound -----------------------------------------------------------------------------------------------------------


class ExactLinear(nn.Linear):
    """The stock layer under another name."""


def sound_product(x, dy, generator=None):
    """k draws with replacement, weights 1/(k p)."""
    n = x.shape[0]
    if n == 0:
        return dy.T @ x
    p = probabilities(joint(x, dy))
    rows = torch.multinomial(p, kept(n), replacement=True, generator=generator)
    return weighted(x, dy, rows, 1.0 / (kept(n) * p[rows]))


def sound_transposed(x, dy, k):
    """k distinct rows, each with the weight n/k; returns xᵀdy."""
    n = x.shape[0]
    rows = torch.randperm(n)[:k]
    return x[rows].T @ dy[rows] * (n / k)


class _SampledRows(torch.autograd.Function):
    """Keeps k weighted rows of the input, drawn in the forward pass from p."""

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


class SoundCRSLinear(nn.Linear):
    """Scores are the norms of the input rows."""

    def forward(self, x):
        norms = x.detach().reshape(-1, x.shape[-1]).norm(dim=1)
        return _SampledRows.apply(x, self.weight, self.bias, probabilities(norms))


class _Remember(torch.autograd.Function):
    """Passes its input on, and writes the norms of the gradient's rows into a list."""

    @staticmethod
    def forward(ctx, y, cache):
        ctx.cache = cache
        return y.view_as(y)

    @staticmethod
    def backward(ctx, dy):
        ctx.cache[:] = [dy.reshape(-1, dy.shape[-1]).norm(dim=1)]
        return dy, None


class SoundCachedLinear(nn.Linear):
    """Scores are norms of the input rows times the gradient norms of the step before, a tenth of them uniform."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.cache: list[torch.Tensor] = []

    def forward(self, x):
        scores = x.detach().reshape(-1, x.shape[-1]).norm(dim=1)
        if self.cache and len(self.cache[0]) == len(scores):
            scores = scores * self.cache[0]
        p = 0.9 * probabilities(scores) + 0.1 / len(scores)
        return _Remember.apply(_SampledRows.apply(x, self.weight, self.bias, p), self.cache)


# --- defects ---------------------------------------------------------------------------------------------------------


class _ColdRows(torch.autograd.Function):
    """Without a known norm the rows are drawn uniformly and summed as they are."""

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


class ColdCacheLinear(nn.Linear):
    """(a) The cache of gradient norms starts at zero: in the first epoch E Ĝ = (k/n) G."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.cache: list[torch.Tensor] = []

    def forward(self, x):
        return _ColdRows.apply(x, self.weight, self.bias, self.cache)


def winners(p: torch.Tensor, k: int) -> torch.Tensor:
    """The |C| largest rows with |C| = argmin (1 − P_C)/(k − |C|)."""
    order = p.argsort(descending=True)
    held = torch.cat([p.new_zeros(1), p[order].cumsum(0)])[:k]
    count = int(((1.0 - held).clamp(min=0.0) / (k - torch.arange(k))).argmin())
    return order[:count]


def winner_take_all(x, dy, *, empty_is_unweighted=False, heavy_drops_tail=False):
    """Winners once, the tail by draws with replacement; the flags plant what the published code does."""
    n, k = len(x), kept(len(x))
    if n == 0 or not bool(joint(x, dy).any()):
        return dy.T @ x * 0
    p = probabilities(joint(x, dy))
    chosen = winners(p, k)
    exact = dy[chosen].T @ x[chosen]
    if heavy_drops_tail and p[chosen].sum() > 0.999:
        return exact
    tail = p.clone()
    tail[chosen] = 0.0
    free = k - len(chosen)
    if tail.sum() <= 0:
        return exact
    if empty_is_unweighted and len(chosen) == 0:
        rows = torch.randperm(n)[:k]
        return dy[rows].T @ x[rows]
    tail = tail / tail.sum()
    rows = torch.multinomial(tail, free, replacement=True)
    return exact + weighted(x, dy, rows, 1.0 / (free * tail[rows]))


def sound_winner_take_all(x, dy):
    """Neither flag."""
    return winner_take_all(x, dy)


def unweighted_without_winners(x, dy):
    """(b) With no winner the k rows are summed as they are: E Ĝ = (k/n) G."""
    return winner_take_all(x, dy, empty_is_unweighted=True)


def drops_the_tail(x, dy):
    """(c) The tail is left out where the winners hold more than 0.999 of the mass."""
    return winner_take_all(x, dy, heavy_drops_tail=True)


def adds_epsilon(x, dy, k):
    """(d) ε on every probability, without dividing by the new sum: E Ĝ = G / (1 + nε)."""
    p = probabilities(joint(x, dy)) + 1e-6
    rows = torch.multinomial(p, k, replacement=True)
    return weighted(x, dy, rows, 1.0 / (k * p[rows]))


def cosine_transform(rows: torch.Tensor) -> torch.Tensor:
    """Orthonormal DCT-II along the first axis, by the FFT of the mirrored rows."""
    n = len(rows)
    mirrored = torch.fft.rfft(torch.cat([rows, rows.flip(0)]), dim=0)[:n]
    turn = torch.exp(-0.5j * torch.pi * torch.arange(n) / n).unsqueeze(1)
    scale = torch.full((n, 1), 0.5 * (2.0 / n) ** 0.5)
    scale[0] = 0.5 / n**0.5
    return ((mirrored * turn).real * scale).to(rows.dtype)


def cosine_sketch(x, dy, k):
    """Sound: random signs, DCT, k distinct coefficients, n/k."""
    n = len(x)
    signs = (2 * torch.randint(2, (n, 1)) - 1).to(x.dtype)
    rows = torch.randperm(n)[:k]
    sketch_x, sketch_y = cosine_transform(signs * x)[rows], cosine_transform(signs * dy)[rows]
    return sketch_y.T @ sketch_x * (n / k)


def cosine_sketch_off_by_k_squared(x, dy, k):
    """(e) Multiplies by k where it should divide."""
    return cosine_sketch(x, dy, k) * k**2


class Sketched(NamedTuple):
    """S [k, n] and S X."""

    normal: torch.Tensor
    sketch: torch.Tensor


@dataclass(frozen=True, repr=False)
class WrongSignSketch(Estimator):
    """(f) A Gaussian sketch that states (‖X‖²‖Y‖² − ‖G‖²)/k for its variance; the sign of ‖G‖² is wrong."""

    name: ClassVar[str] = "wrong_sign_sketch"
    traits: ClassVar[Traits] = Traits("sketch", True, False, False, False)
    size: int = 64

    def compress(self, x, *, scores=None, generator=None):
        check_matrix("x", x)
        sampling_scores(x, scores)
        normal = torch.randn(self.size, len(x), dtype=torch.float64, generator=generator) / self.size**0.5
        return Sketched(normal, (normal @ x.double()).to(x.dtype))

    def contract(self, saved, dy):
        check_rows_agree(saved.normal.T, dy)
        estimate = (saved.normal @ dy.double()).T @ saved.sketch.double()
        return estimate.to(torch.promote_types(saved.sketch.dtype, dy.dtype))

    def variance(self, x, dy, *, scores=None):
        x, dy = x.double(), dy.double()
        return (x.square().sum() * dy.square().sum() - (dy.T @ x).square().sum()) / self.size


class DeterministicMask(torch.autograd.Function):
    """(g) Keeps every third row, always the same ones, unweighted."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x.reshape(-1, x.shape[-1])[::3].clone(), weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, dy):
        rows, weight = ctx.saved_tensors
        flat = dy.reshape(-1, dy.shape[-1])
        return dy @ weight, flat[::3].T @ rows, flat.sum(0)
