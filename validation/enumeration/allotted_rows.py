"""The rows that `mixed_precision_rows` draws, as a row design of their own: enumeration lists its plans."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from wtacrs.estimators import MixedPrecisionRows, RowEstimator, RowPlan, Traits
from wtacrs.estimators.composites.mixed_precision_rows import SlotPlan
from wtacrs.estimators.composites.slots import Allotment, allot, peak_to_rms, relative_error


@dataclass(frozen=True, repr=False)
class AllottedRows(RowEstimator):
    """One slot for every row of x, weight 0 where it is not kept: the plan of the estimator itself.

    Args:
        budget: not looked at; the estimator's slots decide.
        estimator: whose rows.
        spread: of every row, as numbers, so that equal designs are equal.
    """

    estimator: MixedPrecisionRows
    spread: tuple[float, ...]

    name: ClassVar[str] = "allotted_rows"
    traits: ClassVar[Traits] = Traits(
        family="rows", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=False
    )

    @classmethod
    def of(cls, estimator: MixedPrecisionRows, x: Float[Tensor, "n d"]) -> AllottedRows:
        """The design for these rows."""
        return cls(budget=1, estimator=estimator, spread=tuple(peak_to_rms(x, estimator.group).tolist()))

    def allotment(self, scores: Float64[Tensor, " n"]) -> Allotment:
        """That of the estimator."""
        return allot(scores, scores.new_tensor(self.spread), self.estimator.slots_for(scores.shape[0]))

    def uniforms(self, n: int) -> int:
        """Those of the design."""
        return self.estimator.rows_design(n).uniforms(n)

    def keys(self, n: int) -> int:
        """Those of the design."""
        return self.estimator.rows_design(n).keys(n)

    def plan(self, scores: Float64[Tensor, " n"], uniforms: Float64[Tensor, " q"]) -> RowPlan:
        """What the estimator does with these numbers."""
        kept = self.estimator.plan(self.allotment(scores), uniforms)
        return RowPlan(torch.arange(scores.shape[0], device=scores.device), kept.weights)

    def cuts(self, scores: Float64[Tensor, " n"], chosen: Float64[Tensor, " j"]) -> Float64[Tensor, " c"]:
        """Those of the design at the number of rows that are kept, with the sizes after rounding for scores."""
        n = scores.shape[0]
        sizes = scores * (1.0 + relative_error(scores.new_tensor(self.spread), 1)).sqrt()
        design = replace(self.estimator.rows_design(n), budget=max(int(self.allotment(scores).rows), 1))
        return design.cuts(sizes, chosen)

    def slot_plan(self, scores: Float64[Tensor, " n"], plan: RowPlan) -> SlotPlan:
        """The estimator's plan again."""
        slots = torch.where(plan.weights > 0, 1 + self.allotment(scores).refinements, 0)
        return SlotPlan(slots, plan.weights)
