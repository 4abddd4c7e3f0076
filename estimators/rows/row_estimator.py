"""The row-sampling template: every row design is a plan, and everything else follows from its coefficients.

A row design returns `Ĝ = dYᵀ diag(c) X` with a random coefficient vector `c` that is zero except at the k kept
rows. Hence, for every design,

    E Ĝ   = dYᵀ diag(E c) X
    Var Ĝ = Σ_ij Cov(c)_ij ⟨x_i, x_j⟩ ⟨y_i, y_j⟩            (theory of linear estimators; Frobenius norm)

A design is written as a deterministic function `plan(scores, uniforms)` of independent uniform numbers (see
`wtacrs.estimators.core.row_design`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor

from wtacrs.estimators.core.checks import check_length, check_rows_agree
from wtacrs.estimators.core.errors import NoClosedForm
from wtacrs.estimators.core.nonzero_rows import nonzero_rows
from wtacrs.estimators.core.products import double_product, product_dtype
from wtacrs.estimators.core.row_design import RowDesign, RowPlan
from wtacrs.estimators.core.scores import row_norms, sampling_scores
from wtacrs.estimators.core.sizing import check_budget, rows_for
from wtacrs.estimators.core.sourced import RandomChoices, SourcedEstimator
from wtacrs.estimators.core.stored_pairs import StoredRows

MOST_ROWS_FOR_COVARIANCE = 16_384


class RowMoments(NamedTuple):
    """Mean and covariance of the coefficient vector `c`."""

    mean: Float64[Tensor, " n"]
    covariance: Float64[Tensor, "n n"]


class SavedRows(NamedTuple):
    """What a row design keeps of `x [n, d]`: k rows, 4 bytes per index, 4 (fp64: 8) bytes per weight."""

    rows: Float[Tensor, "k d"]
    indices: Int[Tensor, " k"]
    weights: Float[Tensor, " k"]
    shape_carrier: Float[Tensor, "n 0"]  # no bytes: carries n, so that a dY of another length is refused


@dataclass(frozen=True, repr=False)
class RowEstimator(RowDesign, SourcedEstimator[SavedRows]):
    """Base of all row designs: a subclass is a frozen dataclass with `traits` that defines `plan(scores, uniforms)`.

    It may override

    - `uniforms(n)`: how many random numbers a plan takes; one per slot by default;
    - `coefficient_mean(scores)`: the mean weight of every row, `[n]` in fp64, where it is not 1 (a biased design);
    - `moments(scores)` and `weight_squares(scores)`: closed forms of the variance, measured where there are none;
    - `cuts(scores)` and `keys(n)`: where the outcome of a plan changes, so that enumeration can list all outcomes;
    - `macs(n, d, m)` and `pair_slots(n)`: where there are other than k slots.

    Args:
        budget: float in (0, 1], the fraction of rows kept, or int ≥ 1, their number.
    """

    budget: int | float

    def __post_init__(self) -> None:
        check_budget(self.budget, self.name)

    def uniforms(self, n: int) -> int:
        """One per slot, unless a design says otherwise."""
        return rows_for(self.budget, n)

    def keep(self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"], source: RandomChoices) -> SavedRows:
        """Gather the rows of a plan."""
        return keep_rows(x, source.plan(self, scores))

    def unlisted(self) -> str | None:
        """A plan that is drawn in another way, or has no cuts, cannot be listed."""
        if self.traits.deterministic:
            return None
        if type(self).draw is not RowDesign.draw:
            return f"{self!r} overrides draw: its plan alone does not say what it does"
        if type(self).cuts is RowDesign.cuts:
            return f"{self!r} does not define cuts: its outcomes cannot be listed"
        return None

    def moments(self, scores: Float64[Tensor, " n"]) -> RowMoments:
        """Closed form of the mean and covariance of the coefficients, O(n²) memory.

        Raises:
            NoClosedForm: if it is not known.
        """
        raise NoClosedForm(
            f"{self!r} has no closed form for the moments of its coefficients; use enumeration or Monte Carlo"
        )

    def contract(self, saved: SavedRows, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """`Σ_j weight_j · y_(i_j) x_(i_j)ᵀ` over the kept rows (see `Estimator.contract`)."""
        check_length(saved.shape_carrier, dy)
        return weighted_product(saved.rows, saved.indices, saved.weights, dy)

    def pair_slots(self, n: int) -> int:
        """k, unless a design says otherwise (see `wtacrs.estimators.core.stored_pairs`, as for what follows)."""
        return rows_for(self.budget, n)

    def slot_macs(self, d: int, m: int) -> int:
        """`d·m`."""
        return d * m

    def slot_norms(self, saved: SavedRows, dy: Float[Tensor, "n m"]) -> Float64[Tensor, " k"]:
        """`weight_j ‖x_(i_j)‖‖y_(i_j)‖`."""
        check_length(saved.shape_carrier, dy)
        return saved.weights.double() * row_norms(saved.rows) * row_norms(dy.index_select(0, saved.indices))

    def variance_estimate(self, saved: SavedRows, dy: Float[Tensor, "n m"]) -> Float64[Tensor, ""]:
        """`Σ_j (1 − 1/weight_j)⁺ ‖pair j‖²`: with weights 1/π its mean is `Σ_i (1/π_i − 1) w_i²`."""
        weights = saved.weights.double()
        share = torch.where(weights > 1, 1.0 - 1.0 / weights.clamp(min=1.0), 0.0)
        return (share * self.slot_norms(saved, dy).square()).sum()

    def stored_rows(self, saved: SavedRows) -> StoredRows:
        """The kept rows with their weights."""
        return StoredRows(saved.rows.double() * saved.weights.double().unsqueeze(1), saved.indices)

    def contract_slots(
        self, saved: SavedRows, dy: Float[Tensor, "n m"], slots: Int[Tensor, " s"], factors: Float[Tensor, " s"]
    ) -> Float[Tensor, "m d"]:
        """`Σ_s factors_s · weight_j · y_(i_j) x_(i_j)ᵀ`."""
        check_length(saved.shape_carrier, dy)
        rows, indices, weights = (t.index_select(0, slots) for t in (saved.rows, saved.indices, saved.weights))
        return weighted_product(rows, indices, weights * factors.to(weights.dtype), dy)

    def macs(self, n: int, d: int, m: int) -> int:
        """`k·d·m`; a design with other than k slots, or with matrix products in its draw, says so itself."""
        return rows_for(self.budget, n) * d * m

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """`dYᵀ diag(E c) X` in fp64 (see `Estimator.expectation`)."""
        check_rows_agree(x, dy)
        return coefficient_expectation(self.coefficient_mean(sampling_scores(x, scores)), x, dy)

    def coefficient_mean(self, scores: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """`E c`; designs that reach every row of positive score without bias keep this default."""
        return (scores > 0).to(torch.float64)

    def weight_squares(self, scores: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """`E Σ_j weight_j²` over the slots j that hold row i: what independent errors in the stored rows cost.

        Raises:
            NoClosedForm: if it is not known.
        """
        raise NoClosedForm(f"{self!r} has no closed form for its squared weights; use Monte Carlo")

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`Σ_ij Cov(c)_ij ⟨x_i, x_j⟩⟨y_i, y_j⟩` in fp64, O(n²) memory (see `Estimator.variance`).

        Raises:
            NoClosedForm: if the moments are not known, or for more than 16,384 rows, where a matrix of n² numbers takes
                over 2 GiB.
        """
        if self.traits.deterministic:
            return super().variance(x, dy, scores=scores)
        check_rows_agree(x, dy)
        if x.shape[0] > MOST_ROWS_FOR_COVARIANCE:
            raise NoClosedForm(f"{self!r}: {x.shape[0]} rows need a covariance of n² numbers; use Monte Carlo")
        return coefficient_variance(self.moments(sampling_scores(x, scores)).covariance, x, dy)


def weighted_product(
    rows: Float[Tensor, "k d"], indices: Int[Tensor, " k"], weights: Float[Tensor, " k"], dy: Float[Tensor, "n m"]
) -> Float[Tensor, "m d"]:
    """`Σ_j weight_j · y_(i_j) row_jᵀ`, in the dtype of the exact product; rows of dY that are zero cost nothing."""
    dtype = product_dtype(rows, dy)
    # weights reach n/k and beyond: weighted fp16 rows could overflow although the product does not
    working = torch.float32 if dtype == torch.float16 else dtype
    kept = dy.index_select(0, indices)
    nonzero = nonzero_rows(kept, rows.shape[1])
    if nonzero is not None:
        kept, rows, weights = (t.index_select(0, nonzero) for t in (kept, rows, weights))
    weighted = (kept * weights.unsqueeze(1)).to(working)
    return (weighted.T @ rows.to(working)).to(dtype)


def keep_rows(x: Float[Tensor, "n d"], plan: RowPlan) -> SavedRows:
    """Gather the rows of a plan; weights are kept in fp32, or fp64 beside fp64 rows."""
    weight_dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return SavedRows(
        rows=x.index_select(0, plan.indices),
        indices=plan.indices.to(torch.int32),
        weights=plan.weights.to(weight_dtype),
        shape_carrier=x.new_empty((x.shape[0], 0)),
    )


def all_rows(scores: Float64[Tensor, " n"]) -> RowPlan:
    """The plan that keeps every row of positive score once: the exact product."""
    return RowPlan(torch.arange(scores.shape[0], device=scores.device), (scores > 0).to(torch.float64))


def coefficient_expectation(
    mean: Float64[Tensor, " n"], x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"]
) -> Float64[Tensor, "m d"]:
    """`dYᵀ diag(mean) X` in fp64."""
    return double_product(x, dy, mean)


def coefficient_variance(
    covariance: Float64[Tensor, "n n"], x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"]
) -> Float64[Tensor, ""]:
    """`Σ_ij covariance_ij ⟨x_i, x_j⟩⟨y_i, y_j⟩` in fp64."""
    x, dy = x.double(), dy.double()
    return (covariance * (x @ x.T) * (dy @ dy.T)).sum()


def pair_norms(x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"]) -> Float64[Tensor, " n"]:
    """`w_i = ‖x_i‖‖y_i‖`, the Frobenius norm of pair i."""
    return row_norms(x) * row_norms(dy)


def product_norm_squared(
    x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], rows: Shaped[Tensor, " n"]
) -> Float64[Tensor, ""]:
    """`‖Σ_i rows_i y_i x_iᵀ‖²_F` in fp64 for a 0/1 selection `rows`."""
    return coefficient_expectation(rows.to(torch.float64), x, dy).square().sum()
