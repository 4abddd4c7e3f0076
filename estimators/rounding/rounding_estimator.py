"""What the estimators share that keep every row with few bits: `Ĝ = dYᵀ Q(X)`, each number rounded by itself.

A subclass writes `keep` against a source of uniform numbers: `compress` passes those of a generator, enumeration
listed ones, which it chooses between the cuts that follow from `places`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Estimator, Traits
from wtacrs.estimators.core.checks import check_matrix, check_rows_agree
from wtacrs.estimators.core.counter_rng import FreshNumbers, Uniforms
from wtacrs.estimators.core.products import block_rows, double_product, working_dtype
from wtacrs.estimators.core.scores import row_norms, sampling_scores

SavedT = TypeVar("SavedT", bound=tuple[Any, ...])


class RoundingEstimator(Estimator[SavedT]):
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
    def keep(self, x: Float[Tensor, "n d"], source: Uniforms) -> SavedT:
        """What `compress` returns of an `x` with zeros in the rows of score 0; stream 0, `entry_counters`."""

    @abstractmethod
    def places(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Numbers p such that entry p with uniform number u is rounded to ⌊p + u⌋: for enumeration."""

    def compress(
        self,
        x: Float[Tensor, "n d"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> SavedT:
        """Round every number (see `Estimator.compress`)."""
        check_matrix("x", x)
        return self.keep(zero_unscored_rows(x, scores), FreshNumbers(generator, working_dtype(x.dtype)))

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
