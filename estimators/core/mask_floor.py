"""A mask is a hint: rows that it calls padding keep a floor under their scores, so that the mean is exact if it is wrong.

A padding mask says which rows have `y_i = 0`. Given score 0, such a row is never drawn, and the estimate is biased if
the mask is wrong. A floor makes every row of positive score reachable. Then `EĜ = G` whatever the mask says, for every
estimator whose mean is exact at all positive scores. What follows is the price where the mask is right.

Notation: live rows are those that the mask calls real. Their positive scores are `s_1 ≥ … ≥ s_p`, `R_c = Σ_{i>c} s_i`,
k rows are kept, δ is the share, N the number of masked rows of positive score, `w_i = ‖x_i‖‖y_i‖`. Let
`h(t) = Σ_live min(1, s_i/t)`, and `π_i = min(1, s_i/τ)` with `h(τ) = k` be the inclusion probabilities of the live rows
by themselves if p > k (for p ≤ k they are all 1; let `τ = s_p`). *The floor:*

    f = δ/(1−δ) · R_c / N  for every masked row,    c = |C| if p > k,  c = p − 1 if p ≤ k,

where C is the take-all set: the leading rows `j + 1` with `s_(j+1) (k − j) ≥ R_j`.

**What c satisfies.** (1) `s_i ≥ τ` for i ≤ c; (2) `s_i ≤ τ` for i > c; (3) `R_c = (k − c) τ` if p > k, and `R_c = τ` if
p ≤ k; (4) `c ≤ min(k, p) − 1`. For p ≤ k this is plain. For p > k: if the condition fails at j, it fails at j + 1, since
`s_(j+2) (k−j−1) ≤ s_(j+1) (k−j) − s_(j+1) < R_j − s_(j+1) = R_(j+1)`. It fails at j = k − 1, where it reads
`s_k ≥ s_k + … + s_p`: hence (4). So `t = R_c/(k − c)` is above `s_(c+1)`, since the condition fails at c, and at most
s_c: the condition at c − 1 reads `s_c (k−c) ≥ R_(c−1) − s_c = R_c`. Then `h(t) = c + R_c/t = k`, and h falls strictly
where it is below p: t = τ. Where a tie makes the condition an equality, either answer satisfies (1) to (4), so that
rounding does no harm.

**Inclusion.** Let `π'_i = min(1, s'_i/τ')`, `Σ π' = k`, on live and masked rows together. For p + N ≤ k all are 1. Else
put `t = τ/(1−δ)`. By (2), rows c + 1 … p contribute at most `R_c/t` to the sum of `min(1, s'_i/t)`, rows 1 … c at most c,
and masked rows at most `N f/t = δ R_c/τ`. Together, by (3), at most

    c + (1−δ) R_c/τ + δ R_c/τ = c + R_c/τ = k   (p > k),      c + 1 = p ≤ k   (p ≤ k).

The sum falls with t, and strictly where it is below p + N; it is k at τ'. So **τ' ≤ τ/(1−δ)**, and on every live row

    π'_i ≥ min(1, (1−δ) s_i/τ) ≥ (1−δ) π_i :      Σ_live w_i²/π'_i ≤ 1/(1−δ) · Σ_live w_i²/π_i   for any w.

Rows with `s_i ≥ τ/(1−δ)` stay certain; for p < k and δ ≤ ½ all live rows do, since `τ' = N f/(k−p) ≤ s_p` solves the
equation. Masked rows together have, by (3), `N min(1, f/τ') ≥ min(N, δ (k − c)) > 0` for p ≥ k, and for p < k they share
what is left, at least `min(N, k − p) ≥ 1`.

**CRS.** `p'_i = s_i/(R_0 + N f)` and `N f ≤ δ/(1−δ) R_0`, so `p'_i ≥ (1−δ) p_i`, and `Σ_live w²/p'` grows by at most
1/(1−δ).

**WTA-CRS, the paper's rule.** Its winners at the scores s' are their take-all set C'. Row i has the second moment w_i² as
a winner and `w_i² τ'/s_i` in the tail: `w_i² max(1, τ'/s_i) ≤ w_i² max(1, τ/s_i)/(1−δ)`, also where it changes sides.
With another number c* of winners weights in the tail grow by `1 + N f/R_(c*)` (for `f ≤ s_(c*)`). That is at most
1/(1−δ) for c* ≤ c. The optimal rule, whose C is larger, can pay more where p is just above k.

**Why not a share of all scores.** With `N f = δ/(1−δ) R_0`, rows that are certain anyway raise the floor. One row of
score M beside p − 1 of score 1 gives `τ'/τ ≥ 1 + δ/(1−δ) · M/(p−1)`, without bound, as long as no masked row is certain:
masked rows eat the draws of the tail.

What the bound does not cover: designs that ignore the sizes of scores (`uniform`, sketches) treat a masked row as any
other, `kept=None` has C empty (then the bound is that of CRS), and a composite hands its rows other sizes than these. The
mean is exact for all of them.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from wtacrs.estimators.core.errors import InputError

MASK_FLOOR = 0.01
"""δ: the share of what is drawn that goes to rows which a mask calls padding; it costs 1/(1 − δ) in the second moment."""

_LEAST = torch.finfo(torch.float64).tiny


def scores_with_floor(
    scores: Float64[Tensor, " n"], mask: Bool[Tensor, " n"], kept: int | None, share: float = MASK_FLOOR
) -> Float64[Tensor, " n"]:
    """Scores under which no row of positive score is out of reach, whatever the mask says (proofs above).

    One sort of n numbers; no host synchronisation. Rows of score 0 stay at 0: where the score is the norm of x, their
    pair is 0. If no live row has a positive score there is nothing else to sample, and masked rows keep their scores.

    Args:
        scores: finite values ≥ 0; a value that is not finite leaves one in the result, for `compress` to refuse.
        mask: True for live rows, False for rows that are taken for padding.
        kept: number of rows k ≥ 1 that the estimator keeps (`rows_kept`); None if it is not known.
        share: δ in (0, 1).

    Returns:
        Live scores divided by their largest, and one floor for all masked rows of positive score.

    Raises:
        InputError: on another dtype or shape of `mask`, `kept` below 1, or a share outside (0, 1).

    >>> scores = torch.tensor([4.0, 2.0, 2.0, 7.0, 0.0], dtype=torch.float64)
    >>> mask = torch.tensor([True, True, True, False, False])
    >>> scores_with_floor(scores, mask, kept=2, share=0.2)
    tensor([1.0000, 0.5000, 0.5000, 0.2500, 0.0000], dtype=torch.float64)
    """
    if mask.dtype != torch.bool or mask.shape != scores.shape:
        raise InputError(
            f"mask must be boolean of shape {list(scores.shape)}, got {mask.dtype} of shape {list(mask.shape)}"
        )
    if not 0.0 < share < 1.0:
        raise InputError(f"share={share!r} must be a number in (0, 1)")
    if kept is not None and kept < 1:
        raise InputError(f"kept={kept!r} must be an int ≥ 1, or None if the number of rows is not known")
    if scores.shape[0] == 0:
        return scores
    live = torch.where(mask, scores, 0.0)
    largest = live.amax()
    any_live = largest > 0
    live = live / torch.where(any_live, largest, 1.0)
    masked = ~mask & (scores > 0) & scores.isfinite()
    # a floor that underflows would put its rows out of reach
    floor = (share / (1.0 - share) * _tail_mass(live, kept) / masked.sum().clamp(min=1)).clamp(min=_LEAST)
    hinted = torch.where(masked, floor, torch.where(mask, live, scores))
    return torch.where(any_live, hinted, scores)


def _tail_mass(live: Float64[Tensor, " n"], kept: int | None) -> Float64[Tensor, ""]:
    """`R_c`: the sum of the live scores outside the take-all set of `kept` rows; of all of them if `kept` is None."""
    if kept is None:
        return live.sum()
    ascending = live.sort().values
    ordered, remainder = ascending.flip(0), ascending.cumsum(0).flip(0)
    positive = (ordered > 0).sum()
    draws = kept - torch.arange(live.shape[0], device=live.device)
    leading = (ordered * draws >= remainder).to(torch.int64).cumprod(0).sum()
    # at p = k rounding must not decide whether the take-all set is empty or whole
    c = torch.where(positive <= kept, positive - 1, leading.clamp(max=kept - 1)).clamp(min=0)
    # indexing with a 0-dimensional tensor would read it on the host
    return remainder.index_select(0, c.reshape(1)).squeeze(0)
