"""`crs`: column-row sampling, k independent draws with replacement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Published, Traits
from wtacrs.estimators.core.checks import check_rows_agree
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.row_design import RowPlan
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.rows.row_estimator import RowEstimator, RowMoments, pair_norms, product_norm_squared


@register("crs")
@dataclass(frozen=True, repr=False)
class CRS(RowEstimator):
    """Column-row sampling: `Ĝ = (1/k) Σ_j Z_(i_j) / p_(i_j)` with i_1 … i_k drawn independently from p.

    Source: Drineas, Kannan & Mahoney, "Fast Monte Carlo Algorithms for Matrices I: Approximating Matrix
    Multiplication", SIAM Journal on Computing 36, 2006 (algorithm BasicMatrixMultiplication). Here `Z_i = y_i x_iᵀ`,
    `w_i = ‖Z_i‖_F`, `p_i = s_i / Σ s`.

    Mean: one term has mean `Σ_i p_i Z_i / p_i = Σ_i Z_i` over the rows with p_i > 0, and Ĝ averages k of them.
    So `EĜ = G` as soon as p_i > 0 wherever Z_i ≠ 0.

    Variance: the k terms are independent, and one has `E‖Z_i/p_i‖² − ‖G‖² = Σ_i w_i²/p_i − ‖G‖²`. Hence

        Var Ĝ = (Σ_i w_i²/p_i − ‖G‖²) / k,      with p ∝ w:  ((Σ w)² − ‖G‖²) / k,

    the least over p by Cauchy–Schwarz. Drawn with replacement, it does not vanish at k = n.

    Bytes: k rows + 8 per row (index and weight). MACs: `k·d·m`.

    >>> import torch
    >>> x, dy = torch.randn(64, 8), torch.randn(64, 4)
    >>> estimator = CRS(budget=0.25)
    >>> estimate = estimator.contract(estimator.compress(x, generator=torch.Generator().manual_seed(0)), dy)
    >>> estimate.shape
    torch.Size([4, 8])
    >>> bool(torch.allclose(estimator.expectation(x, dy), (dy.T @ x).double(), atol=1e-4))
    True
    """

    published: ClassVar[Published] = Published("Drineas, Kannan & Mahoney 2006", unbiased=True)
    traits: ClassVar[Traits] = Traits(
        family="rows", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=False
    )

    def plan(self, scores: Float64[Tensor, " n"], uniforms: Float64[Tensor, " k"]) -> RowPlan:
        """Invert the cumulative distribution at every uniform number; a row of score 0 is never hit."""
        k = uniforms.shape[0]
        if k == 0:
            return RowPlan(torch.zeros_like(uniforms, dtype=torch.int64), uniforms)
        cumulative = scores.cumsum(0)
        total = cumulative[-1:]
        # u·total may round up to total; the last row of positive score is where the sum first reaches it
        last = torch.searchsorted(cumulative, total)
        indices = torch.minimum(torch.searchsorted(cumulative, uniforms * total, right=True), last)
        return RowPlan(indices, total / (scores[indices] * k))

    def cuts(self, scores: Float64[Tensor, " n"], chosen: Float64[Tensor, " j"]) -> Float64[Tensor, " c"]:
        """The cumulative distribution, the same for every number."""
        return scores.cumsum(0)[:-1] / scores.sum()

    def moments(self, scores: Float64[Tensor, " n"]) -> RowMoments:
        """`c_i = N_i / (k p_i)` with N multinomial: mean 1, `Cov = (diag(1/p) − 1) / k` on the support of p."""
        support = (scores > 0).to(torch.float64)
        k = rows_for(self.budget, scores.shape[0])
        inverse = torch.where(scores > 0, scores.sum() / scores, 0.0)
        return RowMoments(support, (torch.diag(inverse) - torch.outer(support, support)) / k)

    def weight_squares(self, scores: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """k draws that hit row i with probability p_i and weigh 1/(k p_i): `1/(k p_i)`."""
        k = rows_for(self.budget, scores.shape[0])
        return torch.where(scores > 0, scores.sum() / (k * scores), 0.0)

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`(Σ w_i²/p_i − ‖G‖²) / k` over the rows of positive score, O(n·d·m)."""
        check_rows_agree(x, dy)
        s = sampling_scores(x, scores)
        k = rows_for(self.budget, s.shape[0])
        if k == 0:
            return s.sum()
        second_moment = (torch.where(s > 0, pair_norms(x, dy).square() / s, 0.0)).sum() * s.sum()
        return ((second_moment - product_norm_squared(x, dy, s > 0)) / k).clamp(min=0.0)
