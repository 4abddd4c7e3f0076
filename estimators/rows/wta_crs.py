"""`wta_crs`: winner-take-all column-row sampling; the largest rows once, the rest drawn with replacement."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Published, Traits
from wtacrs.estimators.core.checks import check_rows_agree
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.row_design import RowPlan
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.rows.ranking import Ranking, rank_rows
from wtacrs.estimators.rows.row_estimator import (
    RowEstimator,
    RowMoments,
    all_rows,
    pair_norms,
    product_norm_squared,
)

WINNER_RULES = ("paper", "optimal")


@register("wta_crs")
@dataclass(frozen=True, repr=False)
class WTACRS(RowEstimator):
    """WTA-CRS: keep the |C| rows of largest score with weight 1, draw k − |C| rows from the tail T.

    Source: Liu et al., "Winner-Take-All Column Row Sampling for Memory Efficient Adaptation of Language Model",
    NeurIPS 2023, arXiv 2305.15265, equation 6 and Theorems 1–2. With `p_i = s_i / Σ s`, `P_T = Σ_T p_i`,

        Ĝ = Σ_C Z_i + Σ_{j ≤ k−|C|} P_T / ((k − |C|) p_(i_j)) · Z_(i_j),      i_j drawn from p / P_T on T.

    Mean: one tail term has mean `Σ_T (p_i/P_T) · P_T/((k−|C|) p_i) · Z_i = G_T / (k−|C|)`; with k − |C| of them
    and the winners, `EĜ = G_C + G_T = G`, for any fixed choice of C, whatever the scores (theirs must be
    positive where Z_i ≠ 0). C depends on the scores, never on the draw.

    Variance: only the tail is random, and it is CRS with k − |C| draws from p/P_T:

        Var Ĝ = (P_T Σ_T w_i²/p_i − ‖G_T‖²) / (k − |C|),      with p ∝ w:  (S_T² − ‖G_T‖²) / (k − |C|).

    `winners` chooses |C|:

    - `"paper"`: `argmin_c P_T / (k − c)`, the paper's rule. It adds winner c + 1 exactly while that row's
      inclusion probability without replacement would exceed 1: C is the take-all set of IPPS sampling.
    - `"optimal"`: the optimal rule, which minimises `S_T² / (k − c)`: the variance with p ∝ w less its cross term
      ‖G_T‖², which would need a pass over X and dY. Its threshold is about half the paper's, so its C is larger.
    - an int: that many winners, at most k − 1; a float in [0, 1): that fraction of the k rows.

    It is never above that of CRS with the same scores if `Σ_C p ≥ |C|/k` (the paper's Theorem 2), whatever w is. Then
    `P_T/(k − |C|) ≤ 1/k`, and by Cauchy–Schwarz `A = Σ_C w²/p ≥ ‖G_C‖²/P_C`, `B = Σ_T w²/p ≥ ‖G_T‖²/P_T`, so that

        k (Var_CRS − Var Ĝ) = A − ‖G‖² + B (1 − k P_T/(k − |C|)) + ‖G_T‖² k/(k − |C|)
                            ≥ ‖G_C‖²/P_C + ‖G_T‖²/P_T − ‖G_C + G_T‖² ≥ 0,

    B standing at a factor ≥ 0, and `P_C + P_T = 1`.

    Edge cases: k = n keeps every row; when the winners hold all the mass the tail is empty and the estimate is
    exact; with fewer rows of positive score than k every one of them is kept, except under a fixed `winners`
    below their number.

    Bytes: k rows + 8 per row (index and weight). MACs: `k·d·m`.

    >>> import torch
    >>> x = torch.diag(torch.tensor([8.0, 4.0, 1.0, 1.0, 1.0, 1.0]))
    >>> estimator = WTACRS(budget=4, winners="paper")
    >>> kept = estimator.compress(x, generator=torch.Generator().manual_seed(0))
    >>> kept.indices[:2], kept.weights
    (tensor([0, 1], dtype=torch.int32), tensor([1., 1., 2., 2.]))
    """

    winners: str | int | float = "paper"

    published: ClassVar[Published] = Published("Liu et al. 2023, arXiv 2305.15265", unbiased=True)
    traits: ClassVar[Traits] = Traits(
        family="rows", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        w = self.winners
        if isinstance(w, str):
            valid = w in WINNER_RULES
        elif isinstance(w, bool) or not isinstance(w, (int, float)):
            valid = False
        else:
            valid = w >= 0 if isinstance(w, int) else 0.0 <= w < 1.0
        if not valid:
            raise InputError(
                f'wta_crs: winners={w!r} must be "paper", "optimal", an int ≥ 0 (number of winners) '
                "or a float in [0, 1) (fraction of the k rows)"
            )
        if isinstance(w, int) and isinstance(self.budget, int) and w >= self.budget:
            raise InputError(
                f"wta_crs: winners={w} must be below budget={self.budget}, or the tail is never drawn"
            )

    def plan(self, scores: Float64[Tensor, " n"], uniforms: Float64[Tensor, " k"]) -> RowPlan:
        """Winners in the first |C| slots; the other slots invert the tail's cumulative distribution."""
        n, k = scores.shape[0], uniforms.shape[0]
        if k == n:
            return all_rows(scores)
        ranking = rank_rows(scores)
        c = self.winner_count(ranking, k)
        # indexing with a 0-dimensional tensor would read it on the host
        tail_mass = ranking.remainder.index_select(0, c.reshape(1)).squeeze(0)
        # summed from the smallest score up, so that a light tail keeps its relative precision
        from_smallest = ranking.remainder[:-1].flip(0)
        place = n - 1 - torch.searchsorted(from_smallest, uniforms * tail_mass, right=True)
        slot = torch.arange(k, device=scores.device)
        wins = slot < c
        tail = ~wins & (tail_mass > 0)
        # u·tail_mass may round up to tail_mass, which would name the last winner
        place = torch.where(wins, slot, torch.maximum(place, c))
        score = ranking.scores[place]
        used = (score > 0) & (wins | tail)
        tail_weight = tail_mass / (torch.where(used, score, 1.0) * (k - c).clamp(min=1))
        weights = torch.where(used, torch.where(wins, 1.0, tail_weight), 0.0)
        return RowPlan(torch.where(used, ranking.order[place], ranking.order[:1]), weights)

    def winner_count(self, ranking: Ranking, k: int) -> Int[Tensor, ""]:
        """|C| as a tensor (no host synchronisation); at most k − 1 unless nothing is left after k winners.

        Raises:
            InputError: if a fixed `winners` leaves no slot for the tail.
        """
        if isinstance(self.winners, str):
            return winner_objective(ranking, k, self.winners).argmin()
        count = fixed_winners(self.winners, k)
        if count >= k:
            raise InputError(
                f"{self!r}: winners={count} must be below the number of kept rows, k = {k} of "
                f"n = {ranking.order.shape[0]}, or the tail is never drawn"
            )
        return torch.full((), count, dtype=torch.int64, device=ranking.order.device)

    def cuts(self, scores: Float64[Tensor, " n"], chosen: Float64[Tensor, " j"]) -> Float64[Tensor, " c"]:
        """The tail's cumulative distribution; the numbers of the winners' slots change nothing."""
        n = scores.shape[0]
        k = rows_for(self.budget, n)
        ranking = rank_rows(scores)
        c = n if k == n else int(self.winner_count(ranking, k))
        if chosen.shape[0] < c or ranking.remainder[c] == 0:
            return scores[:0]
        return ranking.remainder[c + 1 : n].flip(0) / ranking.remainder[c]

    def moments(self, scores: Float64[Tensor, " n"]) -> RowMoments:
        """Winners are certain; on the tail `Cov = (P_T diag(1/p) − 1) / (k − |C|)`."""
        tail, draws = self._tail(scores)
        mass = (scores * tail).sum()
        inverse = torch.where(tail > 0, mass / torch.where(tail > 0, scores, 1.0), 0.0)
        return RowMoments((scores > 0).to(torch.float64), (torch.diag(inverse) - torch.outer(tail, tail)) / draws)

    def weight_squares(self, scores: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """1 for a winner, `P_T/((k − |C|) p_i)` on the tail."""
        if scores.shape[0] == 0:
            return scores
        tail, draws = self._tail(scores)
        on_tail = (scores * tail).sum() / (draws * torch.where(tail > 0, scores, 1.0))
        return torch.where(tail > 0, on_tail, (scores > 0).to(torch.float64))

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`(P_T Σ_T w_i²/p_i − ‖G_T‖²) / (k − |C|)` over the tail rows of positive score, O(n·d·m)."""
        check_rows_agree(x, dy)
        s = sampling_scores(x, scores)
        if s.shape[0] == 0:
            return s.sum()
        tail, draws = self._tail(s)
        squares = torch.where(tail > 0, pair_norms(x, dy).square() / torch.where(tail > 0, s, 1.0), 0.0)
        second_moment = squares.sum() * (s * tail).sum()
        return ((second_moment - product_norm_squared(x, dy, tail)) / draws).clamp(min=0.0)

    def _tail(self, scores: Float64[Tensor, " n"]) -> tuple[Float64[Tensor, " n"], Float64[Tensor, ""]]:
        """Indicator of the tail rows of positive score, and the number of draws spent on them."""
        n = scores.shape[0]
        k = rows_for(self.budget, n)
        if k == n:
            return torch.zeros_like(scores), scores.new_ones(())
        ranking = rank_rows(scores)
        c = self.winner_count(ranking, k)
        in_tail = (torch.arange(n, device=scores.device) >= c) & (ranking.scores > 0)
        tail = torch.zeros_like(scores).scatter(0, ranking.order, in_tail.to(torch.float64))
        return tail, (k - c).clamp(min=1).to(torch.float64)


def fixed_winners(winners: int | float, k: int) -> int:
    """The |C| that a number of winners (int) or a fraction of the k rows (float) means, rounded down.

    >>> fixed_winners(0.5, 7), fixed_winners(2, 7)
    (3, 2)
    """
    return math.floor(winners * k) if isinstance(winners, float) else winners


def winner_objective(ranking: Ranking, k: int, rule: str) -> Float64[Tensor, " {k}+1"]:
    """What a rule minimises, for every |C| = 0 … k: `P_T/(k−c)` ("paper") or `S_T²/(k−c)` ("optimal").

    |C| = k leaves no draw for the tail: 0 if the tail is empty, infinite otherwise.
    """
    left = ranking.remainder[: k + 1]
    loss = left if rule == "paper" else left.square()
    draws = k - torch.arange(k + 1, device=left.device)
    impossible = torch.where(left[k] > 0, torch.inf, 0.0)
    return torch.where(draws > 0, loss / draws.clamp(min=1), impossible)
