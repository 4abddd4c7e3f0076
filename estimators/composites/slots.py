"""How many bits each row deserves: rows and refinements compete for the same slots of two bits a number.

A row that is included with probability π_i, weighs 1/π_i and is stored in t slots has, by itself, the variance

    w_i² [(1 + ε_i(t)) / π_i − 1],      ε_i(t) = m_i / (3 (4^t − 1)²),

where ε is that of dithered rounding to 4^t levels relative to ‖x_i‖², and `m_i = Σ_g size_g max_g² / ‖x_i‖²`
sums over the groups of numbers that share a step. The expected number of slots is to be S. With a price λ per
slot (Lagrange):

- a first slot is worth it with probability `π_i = min(1, s_i/τ)`, τ = √λ, `s_i = w_i √(1 + ε_i(1))`: sampling
  proportional to size, where rounding has made the sizes a little larger;
- the t-th slot of an included row saves `g_i(t) = w_i² (ε_i(t − 1) − ε_i(t)) / π_i` and is worth it where that reaches λ.

Since `ε_i(1) − ε_i(2) < 1 + ε_i(1)`, a refinement that is worth λ belongs to a row of the take-all set, π_i = 1. So the
number R of refinements is a function of the scores alone: it minimises the sum of `s_i²/π_i` for S − R rows less the R
largest of all savings `w_i² (ε_i(t − 1) − ε_i(t))`. With the first c rows certain the sum is
`Σ_{i ≤ c} s_i² + R_c²/(S − R − c)`, R_c the total of the other sizes. Slots are whole, so that one may fall to a row
with π below 1; it then saves the same divided by π. With S above n every row is kept and the rest refine.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from wtacrs.estimators.core.packing import grouped
from wtacrs.estimators.core.scores import row_norms
from wtacrs.estimators.rows.inclusion import Inclusion, inclusion_of
from wtacrs.estimators.rows.ranking import Ranking, rank_rows

BITS_PER_SLOT = 2
MOST_SLOTS = 8  # of a row: 16 bits


class Allotment(NamedTuple):
    """What every row is to get.

    Attributes:
        target: inclusion probabilities of the rows, and how many of them are certain.
        rows: number of rows to be kept, S − R, at most n.
        refinements: slots of a row beyond its first, if it is kept.
    """

    target: Inclusion
    rows: Int[Tensor, ""]
    refinements: Int[Tensor, " n"]


def allot(scores: Float64[Tensor, " n"], peaks: Float64[Tensor, " n"], slots: int) -> Allotment:
    """Divide `slots` between first slots and refinements; no host synchronisation.

    Args:
        scores: checked scores, the assumed sizes w of the pairs.
        peaks: m of every row, `peak_to_rms(x, group)`.
        slots: S ≥ 1.
    """
    n = scores.shape[0]
    most = min(slots, n)
    sizes = scores * (1.0 + relative_error(peaks, 1)).sqrt()
    ranking = rank_rows(sizes)
    savings = _savings(scores, peaks)
    ordered, order = savings.flatten().sort(descending=True, stable=True)
    rows = torch.arange(1, most + 1, device=scores.device)
    saved = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
    cost = _first_slots(ranking, rows) - saved[(slots - rows).clamp(max=ordered.shape[0])]
    chosen = cost.argmin() + 1 if most else rows.sum()
    refined = (torch.arange(ordered.shape[0], device=scores.device) < slots - chosen) & (ordered > 0)
    counts = torch.zeros(n, dtype=torch.int64, device=scores.device).index_add(
        0, order // savings.shape[1], refined.to(torch.int64)
    )
    return Allotment(inclusion_of(sizes, ranking, chosen, most), chosen, counts)


def relative_error(peaks: Float64[Tensor, "*n"], slots: int | Int[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
    """ε(t): variance of dithered rounding to 4^t levels relative to the square of the row."""
    return peaks / (3.0 * (4.0**slots - 1.0) ** 2)


def peak_to_rms(x: Float[Tensor, "n d"], group: int | None) -> Float64[Tensor, " n"]:
    """`m_i = Σ_g size_g max_g² / ‖x_i‖²`: 1 for numbers of equal size, d where one number outshines the others."""
    largest = grouped(x.abs(), group).amax(2).double()
    ends = torch.arange(1, largest.shape[1] + 1, device=x.device) * (x.shape[1] if group is None else group)
    sizes = ends.clamp(max=x.shape[1]).diff(prepend=ends.new_zeros(1))
    norms = row_norms(x)[:, None]
    return (largest / torch.where(norms > 0, norms, 1.0)).square() @ sizes.double()


def _savings(scores: Float64[Tensor, " n"], peaks: Float64[Tensor, " n"]) -> Float64[Tensor, "n t"]:
    """What the second, third … slot of a row takes off its variance."""
    errors = torch.stack([relative_error(peaks, t) for t in range(1, MOST_SLOTS + 1)], dim=1)
    return scores.square()[:, None] * (errors[:, :-1] - errors[:, 1:])


def _first_slots(ranking: Ranking, rows: Int[Tensor, " k"]) -> Float64[Tensor, " k"]:
    """`Σ s_i²/π_i` for every number of rows.

    The take-all set holds the first c rows for the least c with `s_(c+1) (k − c) ≤ R_c`, that is `k ≤ c + R_c/s_(c+1)`,
    and the right side grows with c.
    """
    n = ranking.scores.shape[0]
    positive = ranking.scores > 0
    reach = torch.arange(n, device=rows.device) + ranking.remainder[:n] / torch.where(
        positive, ranking.scores, 1.0
    )
    taken = torch.searchsorted(torch.where(positive, reach, torch.inf), rows.to(torch.float64))
    certain = torch.cat([ranking.scores.new_zeros(1), ranking.scores.square().cumsum(0)])
    return certain[taken] + ranking.remainder[taken].square() / (rows - taken).clamp(min=1)
