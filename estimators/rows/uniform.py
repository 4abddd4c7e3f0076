"""`uniform`: k rows, all alike, whatever their scores; the baseline that every other design must beat."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Published, Traits
from wtacrs.estimators.core.checks import check_rows_agree
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.row_design import RowPlan
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.rows.row_estimator import (
    RowEstimator,
    RowMoments,
    all_rows,
    pair_norms,
    product_norm_squared,
)


@register("uniform")
@dataclass(frozen=True, repr=False)
class Uniform(RowEstimator):
    """Simple random sampling: k of the N rows of positive score, each as likely as any other, weighing N/k.

    Source: Cochran, "Sampling Techniques", 3rd edition, 1977, chapter 2. The sizes of the scores are ignored; a
    score of 0 takes its row out of the population. With `Z_i = y_i x_iᵀ` and I_i the number of times row i is
    drawn, `Ĝ = (N/k) Σ_i I_i Z_i`.

    Mean: in both forms `E I_i = k/N`, so `EĜ = Σ Z_i = G` over the population.

    Variance, with `w_i = ‖Z_i‖_F`:

    - without replacement, `E I_i I_j = k(k−1)/(N(N−1))` for i ≠ j, hence `Cov(c)_ij = −(N−k)/(k(N−1))` and
      `Var c_i = N/k − 1`, and

        Var Ĝ = N² (1 − k/N)/k · (Σ w_i² − ‖G‖²/N) / (N − 1),

      which is 0 for k ≥ N, where every row of the population is kept once;
    - with replacement, I is multinomial: `Var Ĝ = (N Σ w_i² − ‖G‖²) / k`, larger by the factor (N−1)/(N−k).

    Bytes: k rows + 8 per row (index and weight). MACs: `k·d·m`.

    >>> import torch
    >>> x = torch.tensor([[1.0], [0.0], [2.0], [3.0], [4.0]])  # a row of norm 0 is not drawn
    >>> kept = Uniform(budget=2).compress(x, generator=torch.Generator().manual_seed(0))
    >>> kept.weights, 1 in kept.indices
    (tensor([2., 2.]), False)
    """

    replacement: bool = False

    # without replacement every instance promises more (see below)
    published: ClassVar[Published] = Published("Cochran 1977", unbiased=True)
    traits: ClassVar[Traits] = Traits(
        family="rows",
        unbiased=True,
        deterministic=False,
        uses_scores=False,
        exact_at_full_budget=False,
        uses_support=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.replacement, bool):
            raise InputError(f"uniform: replacement={self.replacement!r} must be True or False")
        if not self.replacement:
            # no field: neither compared nor printed
            object.__setattr__(self, "traits", replace(self.traits, exact_at_full_budget=True))

    def uniforms(self, n: int) -> int:
        """One per draw with replacement; one key per row without."""
        return rows_for(self.budget, n) if self.replacement else n

    def keys(self, n: int) -> int:
        """Without replacement, all numbers: the k rows with the least keys are kept."""
        return 0 if self.replacement else n

    def plan(self, scores: Float64[Tensor, " n"], uniforms: Float64[Tensor, " q"]) -> RowPlan:
        """With replacement, row ⌊u·N⌋ of the population; without, its k rows with the least keys."""
        n = scores.shape[0]
        k = rows_for(self.budget, n)
        positive = scores > 0
        population = positive.sum()
        slot = torch.arange(k, device=scores.device)
        if self.replacement:
            ordinal = torch.minimum((uniforms * population.double()).long(), population - 1)
            rows = torch.searchsorted(positive.cumsum(0), ordinal, right=True)
            return RowPlan(rows, (population.double() / max(k, 1)).expand(k))
        if k == n:
            return all_rows(scores)
        rows = torch.where(positive, uniforms, 2.0).argsort(stable=True)[:k]
        used = slot < population
        weight = (population.double() / k).clamp(min=1.0)
        return RowPlan(torch.where(used, rows, rows[:1]), torch.where(used, weight, 0.0))

    def cuts(self, scores: Float64[Tensor, " n"], chosen: Float64[Tensor, " j"]) -> Float64[Tensor, " c"]:
        """Multiples of 1/N with replacement; without, order is all that matters."""
        if not self.replacement:
            return scores[:0]
        population = int((scores > 0).sum())
        return torch.arange(1, population, dtype=torch.float64, device=scores.device) / population

    def moments(self, scores: Float64[Tensor, " n"]) -> RowMoments:
        """One variance for all rows of the population, one covariance for all pairs."""
        population = (scores > 0).to(torch.float64)
        own, shared = self._moments(population)
        outer = torch.outer(population, population)
        return RowMoments(population, own * torch.diag(population) + shared * (outer - torch.diag(population)))

    def weight_squares(self, scores: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """`N/k` on the population, 1 where all of it is kept."""
        population = (scores > 0).to(torch.float64)
        share = population.sum() / max(rows_for(self.budget, scores.shape[0]), 1)
        return population * (share if self.replacement else share.clamp(min=1.0))

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`(Var c − Cov c) Σ w_i² + Cov c · ‖G‖²` over the rows of positive score, O(n·d·m)."""
        check_rows_agree(x, dy)
        population = (sampling_scores(x, scores) > 0).to(torch.float64)
        own, shared = self._moments(population)
        squares = (pair_norms(x, dy).square() * population).sum()
        return ((own - shared) * squares + shared * product_norm_squared(x, dy, population)).clamp(min=0.0)

    def _moments(self, population: Float64[Tensor, " n"]) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
        """`Var c_i` and `Cov(c)_ij` on the population."""
        size = population.sum()
        k = max(rows_for(self.budget, population.shape[0]), 1)
        if self.replacement:
            return (size - 1) / k, torch.full_like(size, -1 / k)
        left_out = (size - k).clamp(min=0.0)
        return left_out / k, -left_out / (k * (size - 1).clamp(min=1.0))
