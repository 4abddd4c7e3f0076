"""An estimator from outside the package: the example that CONTRIBUTING.md names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from wtacrs.estimators import RowEstimator, RowPlan, Traits, register, rows_for


@register("stratified")
@dataclass(frozen=True, repr=False)
class Stratified(RowEstimator):
    """Cut the cumulated scores into k equal parts and draw one row from each.

    >>> Stratified(budget=0.3)
    stratified(budget=0.3)
    """

    traits: ClassVar[Traits] = Traits(
        family="rows", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=False
    )

    def plan(self, scores: Float64[Tensor, " n"], uniforms: Float64[Tensor, " k"]) -> RowPlan:
        """One point in each of the k parts: row i is hit k s_i / Σ s times on average."""
        k = rows_for(self.budget, scores.shape[0])
        cumulated = scores.cumsum(0)
        points = (torch.arange(k) + uniforms) / max(k, 1) * cumulated[-1:]
        last = torch.searchsorted(cumulated, cumulated[-1:])
        indices = torch.minimum(torch.searchsorted(cumulated, points, right=True), last)
        return RowPlan(indices, cumulated[-1:] / (k * scores[indices]))

    def cuts(self, scores: Float64[Tensor, " n"], chosen: Float64[Tensor, " j"]) -> Float64[Tensor, " c"]:
        """Where the cumulated scores pass through the part of the next number."""
        k = rows_for(self.budget, scores.shape[0])
        inside = scores.cumsum(0) / scores.sum() * k - chosen.shape[0]
        return inside[(inside > 0) & (inside < 1)]
