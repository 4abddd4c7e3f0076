"""Inclusion probabilities proportional to size, the one place where they are computed.

Given scores s ≥ 0 and k, `π_i = min(1, s_i / τ)` with τ such that Σ π = k. Among all designs of k rows these π
minimise `Σ (1/π_i − 1) s_i²` (Karush–Kuhn–Tucker: where π_i < 1 the derivative `−s_i²/π_i²` equals a common
multiplier). Rows with π = 1 are the take-all set; with s_(1) ≥ s_(2) ≥ … and R_c the sum after the first c, it
holds the first c rows for the least c with `s_(c+1) (k − c) ≤ R_c`: then no other row exceeds 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from wtacrs.estimators.rows.ranking import Ranking, rank_rows


class Inclusion(NamedTuple):
    """How k of n rows are to be included.

    Attributes:
        probabilities: π, 1 on the take-all set, 0 for rows of score 0.
        tail: the rows with 0 < π that are not in the take-all set.
        taken: size of the take-all set; k less this is the number of tail rows to draw, 0 if the tail is empty.
        ranking: rows in order of falling score; the first `taken` are the take-all set.
    """

    probabilities: Float64[Tensor, " n"]
    tail: Bool[Tensor, " n"]
    taken: Int[Tensor, ""]
    ranking: Ranking


def inclusion(scores: Float64[Tensor, " n"], k: int) -> Inclusion:
    """Inclusion probabilities proportional to checked scores, for 0 ≤ k ≤ n; no host synchronisation.

    With fewer positive scores than k, every row of positive score is in the take-all set.
    """
    return inclusion_of(scores, rank_rows(scores), torch.full((), k, device=scores.device), k)


def inclusion_of(scores: Float64[Tensor, " n"], ranking: Ranking, k: Int[Tensor, ""], most: int) -> Inclusion:
    """`inclusion` for ranked scores and a number of rows that the host does not know, 0 ≤ k ≤ `most` ≤ n."""
    n = scores.shape[0]
    largest_left = torch.cat([ranking.scores, ranking.scores.new_zeros(1)])[: most + 1]
    left = ranking.remainder[: most + 1]
    draws = k - torch.arange(most + 1, device=scores.device)
    taken = (largest_left * draws <= left).to(torch.int64).argmax()  # true at c = k, where nothing is to be drawn
    in_order = torch.arange(n, device=scores.device) >= taken
    tail = torch.zeros_like(in_order).scatter(0, ranking.order, in_order & (ranking.scores > 0))
    # nothing left to draw although rows are left happens at k = 0 alone
    mass = left.index_select(0, taken.reshape(1)).squeeze(0)
    share = (k - taken) / torch.where(mass > 0, mass, 1.0)
    probabilities = torch.where(tail, (scores * share).clamp(max=1.0), (~tail & (scores > 0)).to(torch.float64))
    return Inclusion(probabilities, tail, taken, ranking)
