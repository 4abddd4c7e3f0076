"""`topk`: the k rows of largest score, unweighted; biased, with variance zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from wtacrs.estimators.core.base import Published, Traits
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.row_design import RowPlan
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.rows.row_estimator import RowEstimator, RowMoments


@register("topk")
@dataclass(frozen=True, repr=False)
class TopK(RowEstimator):
    """Deterministic top-k: keep the k rows of largest score with weight 1 and drop the rest.

    Definition (Adelman et al., "Faster Neural Network Training with Approximate Tensor Operations", 2021,
    arXiv 1805.08079; the deterministic end of the WTA-CRS family with |C| = k). Ties go to the earlier row.

    Bias: nothing is drawn, so with T the dropped rows `EĜ − G = −Σ_T y_i x_iᵀ = −G_T`, and the variance is 0.
    The one-step squared error ‖G_T‖² is often below that of every unbiased design; the bias does not average
    out over steps, theirs does.

    Bytes: k rows + 8 per row (index and weight). MACs: `k·d·m`.

    >>> import torch
    >>> x = torch.tensor([[3.0], [1.0], [2.0]])
    >>> TopK(budget=2).contract(TopK(budget=2).compress(x), torch.ones(3, 1))
    tensor([[5.]])
    """

    published: ClassVar[Published] = Published("Adelman et al. 2021, arXiv 1805.08079", unbiased=False)
    traits: ClassVar[Traits] = Traits(
        family="rows", unbiased=False, deterministic=True, uses_scores=True, exact_at_full_budget=True
    )

    def uniforms(self, n: int) -> int:
        """None: nothing is drawn."""
        return 0

    def plan(self, scores: Float64[Tensor, " n"], uniforms: Float64[Tensor, " 0"]) -> RowPlan:
        """The k largest scores; slots beyond the rows of positive score get weight 0."""
        k = rows_for(self.budget, scores.shape[0])
        ordered, order = torch.sort(scores, descending=True, stable=True)
        positive = ordered[:k] > 0
        return RowPlan(torch.where(positive, order[:k], order[:1]), positive.to(torch.float64))

    def coefficient_mean(self, scores: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """1 for a kept row, 0 for a dropped one."""
        plan = self.plan(scores, scores[:0])
        return torch.zeros_like(scores).index_add(0, plan.indices, plan.weights)

    def weight_squares(self, scores: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """1 for a kept row, 0 for a dropped one."""
        return self.coefficient_mean(scores)

    def moments(self, scores: Float64[Tensor, " n"]) -> RowMoments:
        """The indicator of the kept rows; no covariance."""
        n = scores.shape[0]
        return RowMoments(self.coefficient_mean(scores), scores.new_zeros((n, n)))
