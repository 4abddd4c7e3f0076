"""Products that sample rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from published_defects.arithmetic import joint, kept, nothing, probabilities, sampled, weighted
from published_defects.pieces import (
    ADVANCES,
    COLUMNS,
    DOMINATING,
    EQUAL,
    HEAVY,
    OTHER_BATCH,
    TINY,
    ZEROS,
    defect,
    sound,
)


@sound("k draws with replacement from the joint norms, weights 1/(k p), from the generator it is given")
def sound_product(x: Tensor, dy: Tensor, generator: torch.Generator | None = None) -> Tensor:
    if nothing(x, dy):
        return dy.T @ x
    p = probabilities(joint(x, dy))
    rows = torch.multinomial(p, kept(len(x)), replacement=True, generator=generator)
    return weighted(x, dy, rows, 1.0 / (kept(len(x)) * p[rows]))


@sound("k distinct rows drawn evenly, weight n/k; returns xᵀdy")
def sound_transposed(x: Tensor, dy: Tensor, k: int) -> Tensor:
    n = len(x)
    rows = torch.randperm(n)[:k]
    return x[rows].T @ dy[rows] * (n / k)


@defect(COLUMNS, "samples rows, and keeps of each sampled row its larger entries alone: half of all")
def smallest_entries_dropped(x: Tensor, dy: Tensor, k: int) -> Tensor:
    n = len(x)
    rows = torch.randperm(n)[:k]
    kept_rows = x[rows]
    large = kept_rows.abs() >= kept_rows.abs().median(dim=1, keepdim=True).values
    return dy[rows].T @ (kept_rows * large) * (n / k)


@sound("draws from numpy's global generator")
def sound_numpy(x: Tensor, dy: Tensor) -> Tensor:
    if nothing(x, dy):
        return dy.T @ x
    p = probabilities(joint(x, dy).double()).numpy()
    k = kept(len(x))
    rows = torch.from_numpy(np.random.choice(len(p), k, p=p / p.sum()))  # noqa: NPY002
    return weighted(x, dy, rows, (1.0 / (k * torch.from_numpy(p)[rows])).to(x.dtype))


@sound("keeps each row by itself with probability min(1, k p), weight 1/min(1, k p)")
def sound_bernoulli(x: Tensor, dy: Tensor) -> Tensor:
    keep = (kept(len(x)) * probabilities(joint(x, dy))).clamp(max=1.0)
    rows = (torch.rand_like(keep) < keep).nonzero().flatten()
    return weighted(x, dy, rows, 1.0 / keep[rows])


def winners(p: Tensor, k: int) -> Tensor:
    """The |C| largest rows with |C| = argmin (1 − P_C)/(k − |C|)."""
    order = p.argsort(descending=True)
    held = torch.cat([p.new_zeros(1), p[order].cumsum(0)])[:k]
    count = int(((1.0 - held).clamp(min=0.0) / (k - torch.arange(k))).argmin())
    return order[:count]


def winner_take_all(x, dy, *, empty_is_unweighted=False, heavy_drops_tail=False):
    """Winners once, the tail by draws with replacement; the flags plant what published code does."""
    n, k = len(x), kept(len(x))
    if nothing(x, dy):
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


@sound("the heaviest rows once, the others by weighted draws with replacement")
def sound_winner_take_all(x: Tensor, dy: Tensor) -> Tensor:
    return winner_take_all(x, dy)


@defect(EQUAL, "where no row is taken for certain, k rows are summed without weights: E Ĝ = (k/n) G", bias=0.7)
def unweighted_without_winners(x: Tensor, dy: Tensor) -> Tensor:
    return winner_take_all(x, dy, empty_is_unweighted=True)


@defect(DOMINATING, "the light rows are left out where the heavy ones hold more than 0.999 of the mass", bias=1.0)
def drops_the_tail(x: Tensor, dy: Tensor) -> Tensor:
    return winner_take_all(x, dy, heavy_drops_tail=True)


@defect(DOMINATING, "1e-6 is added to every probability, without dividing by the new sum: E Ĝ = G/(1 + nε)")
def adds_epsilon(x: Tensor, dy: Tensor, k: int) -> Tensor:
    p = probabilities(joint(x, dy)) + 1e-6
    rows = torch.multinomial(p, k, replacement=True)
    return weighted(x, dy, rows, 1.0 / (k * p[rows]))


@defect(HEAVY, "the product is multiplied by 0.9, as a damping that nobody undoes", bias=0.1)
def scaled_by_nine_tenths(x: Tensor, dy: Tensor) -> Tensor:
    return 0.9 * sampled(x, dy)


@defect(HEAVY, "the lightest quarter of the rows is never drawn; the others are weighted as if they were all")
def all_but_the_lightest(x: Tensor, dy: Tensor) -> Tensor:
    heavier = joint(x, dy).argsort(descending=True)[: max(1, 3 * len(x) // 4)]
    return sampled(x[heavier], dy[heavier])


@defect(HEAVY, "weights are clipped at twice their median, against outliers")
def clipped_weights(x: Tensor, dy: Tensor) -> Tensor:
    if nothing(x, dy):
        return dy.T @ x
    k, p = kept(len(x)), probabilities(joint(x, dy))
    rows = torch.multinomial(p, k, replacement=True)
    weights = 1.0 / (k * p[rows])
    return weighted(x, dy, rows, weights.clamp(max=2.0 * float(weights.median())))


@defect(DOMINATING, "rows are kept with a probability of at least 0.01, the weights divide by what it was before")
def bernoulli_with_a_floor(x: Tensor, dy: Tensor) -> Tensor:
    if nothing(x, dy):
        return dy.T @ x
    keep = (kept(len(x)) * probabilities(joint(x, dy))).clamp(max=1.0)
    rows = ((torch.rand_like(keep) < keep.clamp(min=0.01)) & (keep > 0)).nonzero().flatten()
    return weighted(x, dy, rows, 1.0 / keep[rows])


@defect(HEAVY, "distinct rows with the weights 1/(k p) of draws with replacement")
def distinct_rows_weighted_as_repeated(x: Tensor, dy: Tensor) -> Tensor:
    if nothing(x, dy):
        return dy.T @ x
    p = probabilities(joint(x, dy))
    k = min(kept(len(x)), int((p > 0).sum()))
    rows = torch.multinomial(p, k)
    return weighted(x, dy, rows, 1.0 / (k * p[rows]))


@defect(
    HEAVY, "weights are normalised to sum to n: a ratio, whose bias shrinks with k but is there", ruled_out=0.01
)
def weights_that_sum_to_n(x: Tensor, dy: Tensor) -> Tensor:
    if nothing(x, dy):
        return dy.T @ x
    k, p = kept(len(x)), probabilities(joint(x, dy))
    rows = torch.multinomial(p, k, replacement=True)
    weights = 1.0 / p[rows]
    return weighted(x, dy, rows, weights * len(x) / weights.sum())


@defect(HEAVY, "the heaviest k rows, divided by their share of the mass")
def largest_over_their_mass(x: Tensor, dy: Tensor) -> Tensor:
    if nothing(x, dy):
        return dy.T @ x
    p = probabilities(joint(x, dy))
    rows = p.topk(kept(len(x))).indices
    return dy[rows].T @ x[rows] / p[rows].sum()


@defect(ADVANCES, "the seed is set anew at every call, so that the same rows are drawn for ever")
def seeds_itself(x: Tensor, dy: Tensor) -> Tensor:
    torch.manual_seed(1234)
    return sampled(x, dy)


@defect(EQUAL, "the mean row is subtracted from x, which lowers the variance, and never added back")
def mean_row_subtracted(x: Tensor, dy: Tensor) -> Tensor:
    return sampled(x - x.mean(0), dy) if len(x) else dy.T @ x


@defect(ZEROS, "padded rows are never drawn, and the weight n/k still counts them", bias=0.5)
def weights_count_the_padding(x: Tensor, dy: Tensor) -> Tensor:
    filled = joint(x, dy).nonzero().flatten()
    if len(filled) == 0:
        return dy.T @ x
    k = kept(len(filled))
    rows = filled[torch.randint(len(filled), (k,))]
    return dy[rows].T @ x[rows] * (len(x) / k)


@defect(TINY, "1e-8 is added to the norms that the weights divide by, not to those that are drawn from")
def norms_kept_from_zero(x: Tensor, dy: Tensor) -> Tensor:
    if nothing(x, dy):
        return dy.T @ x
    norms, k = joint(x, dy), kept(len(x))
    rows = torch.multinomial(probabilities(norms), k, replacement=True)
    return weighted(x, dy, rows, norms.sum() / (k * (norms[rows] + 1e-8)))


_LAST: list[Tensor] = []


@defect(OTHER_BATCH, "rows are drawn by the probabilities of the batch before, and weighted by those of this one")
def drawn_by_the_last_batch(x: Tensor, dy: Tensor) -> Tensor:
    if nothing(x, dy):
        return dy.T @ x
    p, k = probabilities(joint(x, dy)), kept(len(x))
    usable = bool(_LAST) and len(_LAST[0]) == len(p) and _LAST[0].dtype == p.dtype
    rows = torch.multinomial(_LAST[0] if usable else p, k, replacement=True)
    _LAST[:] = [p]
    return weighted(x, dy, rows[p[rows] > 0], 1.0 / (k * p[rows[p[rows] > 0]]))
