"""What the estimators share that keep every row with few bits: `Ĝ = dYᵀ Q(X)`, each number rounded by itself.

A subclass writes `rounded` as a function of uniform numbers: `compress` passes those of a generator, enumeration
listed ones, which it chooses between the cuts that follow from `places`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Traits
from wtacrs.estimators.core.checks import check_rows_agree
from wtacrs.estimators.core.counter_rng import entry_counters
from wtacrs.estimators.core.products import block_rows, double_product, working_dtype
from wtacrs.estimators.core.scores import row_norms, sampling_scores
from wtacrs.estimators.core.sourced import RandomChoices, SourcedEstimator

SavedT = TypeVar("SavedT", bound=tuple[Any, ...])


class RoundingEstimator(SourcedEstimator[SavedT]):
    """Base of the unbiased roundings: rows of score 0 are stored as zeros, the sizes of the scores do not matter."""

    traits: ClassVar[Traits] = Traits(
        family="rounding",
        unbiased=True,
        deterministic=False,
        uses_scores=False,
        exact_at_full_budget=False,
        uses_support=True,
    )

    @abstractmethod
    def rounded(self, x: Float[Tensor, "n d"], uniforms: Float[Tensor, "n d"]) -> SavedT:
        """What is kept of x, every number rounded by its uniform number."""

    @abstractmethod
    def places(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Numbers p such that entry p with uniform number u is rounded to ⌊p + u⌋: for enumeration."""

    def keep(self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"], source: RandomChoices) -> SavedT:
        """Round every number of the rows of positive score; the others become zeros."""
        x = torch.where(scores[:, None] > 0, x, 0.0)
        numbers = source.fresh(working_dtype(x.dtype))
        return self.rounded(x, numbers.uniforms(0, entry_counters(x), lambda: self.places(x)))

    @abstractmethod
    def errors(self, x: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
        """`E‖Q(x_i) − x_i‖²` of every row."""

    def macs(self, n: int, d: int, m: int) -> int:
        """`n·d·m`, as exact."""
        return n * d * m

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """`dYᵀ X` over the rows of positive score, in fp64."""
        check_rows_agree(x, dy)
        return double_product(x, dy, sampling_scores(x, scores) > 0)

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`Σ_i ‖y_i‖² E‖Q(x_i) − x_i‖²` over the rows of positive score."""
        check_rows_agree(x, dy)
        x = zero_unscored_rows(x, scores)
        errors = torch.cat([self.errors(rows) for rows in x.split(block_rows(4 * x.shape[1]))])
        return (errors * row_norms(dy).square()).sum()


def zero_unscored_rows(x: Float[Tensor, "n d"], scores: Shaped[Tensor, " n"] | None) -> Float[Tensor, "n d"]:
    """`x` with zeros in the rows of score 0."""
    return torch.where(sampling_scores(x, scores)[:, None] > 0, x, 0.0)
