"""`priority`: the k rows of largest random priority, with weights from the first one left out."""

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
from wtacrs.estimators.rows.row_estimator import RowEstimator, all_rows


@register("priority")
@dataclass(frozen=True, repr=False)
class Priority(RowEstimator):
    """Priority sampling: keep the k rows of largest priority `q_i = s_i / u_i`, u uniform on (0, 1].

    Source: Duffield, Lund & Thorup, "Priority sampling for estimation of arbitrary subset sums", Journal of the
    ACM 54, 2007; the same rows with other weights are Ohlsson's sequential Poisson sampling, Journal of Official
    Statistics 14, 1998.
    With t the (k+1)-th largest priority (0 if there is none), a kept row weighs `max(1, t/s_i)`.

    Mean: let t_i be the k-th largest priority among the other rows. Row i is kept exactly if q_i > t_i, and then
    t = t_i. Given the other rows this has probability min(1, s_i/t_i) and the weight is max(1, t_i/s_i), its
    inverse: `E c_i = 1`, `EĜ = G`.

    Variance: by the same argument, given all rows but i and j, `E c_i c_j = 1` for k ≥ 2: coefficients of
    different rows are uncorrelated. Given the other rows `E c_i² = max(1, t_i/s_i)`, so with w_i = ‖x_i‖‖y_i‖

        Var Ĝ = Σ_i E[max(0, t_i/s_i − 1)] w_i²,     P(t_i > t) = P(at least k of the others exceed t).

    There is no closed form for that mean; for n equal scores it is `(n − k)/(k − 1)`, infinite for k = 1. With
    s ∝ w the variance is at most that of independent inclusion (`bernoulli`) with k − 1 rows in the mean (Szegedy,
    "The DLT priority sampling is essentially optimal", STOC 2006). As there, rows that are alike do not cancel:
    priority sampling is not below `crs` in general.

    Bytes: k rows + 8 per row (index and weight). MACs: `k·d·m`.

    >>> import torch
    >>> x = torch.tensor([[100.0], [1.0], [1.0], [1.0]])
    >>> kept = Priority(budget=2).compress(x, generator=torch.Generator().manual_seed(0))
    >>> kept.indices[0], kept.weights[0], kept.weights[1] > 1
    (tensor(0, dtype=torch.int32), tensor(1.), tensor(True))
    """

    published: ClassVar[Published] = Published("Duffield, Lund & Thorup 2007", unbiased=True)
    traits: ClassVar[Traits] = Traits(
        family="rows", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=True
    )

    def uniforms(self, n: int) -> int:
        """One per row."""
        return n

    def plan(self, scores: Float64[Tensor, " n"], uniforms: Float64[Tensor, " n"]) -> RowPlan:
        """The k largest priorities; slots beyond the rows of positive score get weight 0."""
        n = scores.shape[0]
        k = rows_for(self.budget, n)
        if k == n:
            return all_rows(scores)
        priority, row = torch.sort(scores / (1.0 - uniforms), descending=True, stable=True)
        used = priority[:k] > 0
        row = torch.where(used, row[:k], row[:1])
        weight = torch.maximum(priority[k] / scores[row], torch.ones_like(priority[k]))
        return RowPlan(row, torch.where(used, weight, 0.0))
