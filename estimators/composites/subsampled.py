"""`subsampled`: of the pairs that another estimator stores, only some are multiplied, drawn once dY is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int, Shaped
from torch import Tensor

from wtacrs.estimators.composites.mixed_precision_rows import DESIGNS
from wtacrs.estimators.core.base import Estimator, Published, Traits, wrapping_saved
from wtacrs.estimators.core.checks import check_choice, check_matrix
from wtacrs.estimators.core.counter_rng import CounterStream
from wtacrs.estimators.core.errors import InputError, NoClosedForm
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.row_design import RowPlan
from wtacrs.estimators.core.scores import has_values
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.core.sourced import RandomChoices, SourcedEstimator
from wtacrs.estimators.core.stored_pairs import StoredPairs
from wtacrs.estimators.rows.fixed_size import FixedSizeEstimator
from wtacrs.estimators.rows.ranking import rank_rows
from wtacrs.estimators.rows.row_estimator import coefficient_variance

ADDED = 0.5
"""What `rows="auto"` lets the second stage add, as a share of the first one's variance."""
WORTHWHILE = 2 / 3
"""Share of the slots beyond which `rows="auto"` multiplies all: there gathering and norms cost more than they save."""
_KEYS = 0  # stream of the seed


class SecondStage(NamedTuple):
    """How pairs are drawn for one dY.

    Attributes:
        design: of k₂ slots.
        scores: the norms of the pairs over their largest.
        finite: whether all of these are numbers; if not, the estimate is NaN.
    """

    design: FixedSizeEstimator
    scores: Float64[Tensor, " k"]
    finite: Bool[Tensor, ""]


@register("subsampled")
@dataclass(frozen=True, repr=False)
class Subsampled(SourcedEstimator[Any]):
    """Two-stage sampling: `Ĝ₂ = A + Σ_(j ∈ S) y_(i_j) r_jᵀ / π_j`, S drawn in the backward pass from the k pairs of `of`.

    `of` stores `Ĝ₁ = A + Σ_j z_j` with `z_j = y_(i_j) r_jᵀ` (see `wtacrs.estimators.core.stored_pairs`): its rows are
    chosen in the forward pass without dY, and it multiplies them all. In the backward pass dY is known, and so is
    `v_j = ‖r_j‖‖y_(i_j)‖`. k₂ of the k pairs are drawn without replacement with `π_j = min(1, v_j/τ)`, Σ π = k₂, which
    minimises Σ v²/π (see `wtacrs.estimators.rows.inclusion`); pairs with π = 1 are the take-all set, and pairs of norm 0
    are never drawn. A, such as the part of an exact mean, is left as it is. Source: two-stage designs and their variance
    in Särndal, Swensson & Wretman, "Model Assisted Survey Sampling", 1992, chapter 9 (two-phase sampling); π proportional
    to the norms of the pairs as in Drineas, Kannan & Mahoney 2006.

    Mean: numbers of a seed of its own draw S, independent of the first stage. Given what is stored, v and π are constants
    and `E[I_j/π_j] = 1` wherever v_j > 0, and z_j = 0 elsewhere: `E[Ĝ₂ | stored] = A + Σ_j z_j = Ĝ₁` for every dY. So
    `E Ĝ₂ = E Ĝ₁`; if `of` is biased, so is the result. This needs no more of v than that it is 0 only where z is: coded
    rows give a near value from their steps.

    Variance: by conditioning on what is stored (law of total variance),

        Var Ĝ₂ = Var Ĝ₁ + E Var(Ĝ₂ | stored),   Var(Ĝ₂ | stored) = Σ_jl (π_jl/(π_j π_l) − 1) ⟨z_j, z_l⟩,

    the second part in closed form where π_jl is known (`conditional_variance`). With v exact, T the pairs that are not in
    the take-all set and c the size of this, it is at most `((Σ_T v)² − ‖Σ_T z‖²)/(k₂ − c)` for the designs that are
    proved to be below sampling with replacement. The sum is closed where nothing is drawn in the first stage (`exact`,
    `topk`).

    `rows="auto"`: the least k₂ with `Σ_j (1/π_j − 1) v_j² ≤ V₁/2`, V₁ the estimate of Var Ĝ₁ that what is stored gives
    (`variance_estimate`): for all rows in few bits exactly Σ Δ²/12 ‖y‖², for sampled rows `Σ (1 − π) v²`, whose mean is
    `Σ (1/π_i − 1) w_i²`. Both sides leave out the products of different pairs, which add up to 0 where these point in
    independent directions; under the designs of the bound above the second stage then exceeds V₁/2 by at most
    `Σ_T v² − ‖Σ_T z‖²`, which is negative where pairs agree. The rule: after the first c pairs by size the sum of v is
    R_c, that of v² Q_c; `c + R_c²/(Q_c + V₁/2)`, rounded up, are enough if no π exceeds 1, and the least of these is
    taken. Where that is above two thirds of the slots, all are multiplied: it would save no time. k₂ is a size of
    tensors: it is counted where that does not wait for a device (on the CPU), elsewhere "auto" multiplies all pairs. A
    number or fraction of slots needs no values anywhere.

    The estimate is not linear in dY, since π depends on it. It depends on all columns of dY at once, so that parts of dY
    that are contracted apart are drawn apart. A dY that is not finite gives NaN.

    Bytes: those of `of`, and 8 for the seed. MACs: those of `of`, less one slot's for each of the k − k₂ (for "auto" they
    depend on the values). Beside these the norms read what is stored and dY once.

    Args:
        of: an estimator with stored pairs: `exact`, any row design, `quantized_rows`, `dithered_rows`.
        rows: float in (0, 1], the fraction of the slots that are multiplied, int ≥ 1, their number, or "auto".
        design: how they are drawn, "systematic", "pivotal", "conditional_poisson" or "sampford".

    >>> import torch
    >>> from wtacrs.estimators import make, saved_bytes
    >>> x, dy = torch.randn(400, 16), torch.randn(400, 4)
    >>> dy[40:] *= 0.01  # the loss looks at few rows, which the forward pass cannot know
    >>> first = make("uniform(budget=0.5)")
    >>> both = make("subsampled(of=uniform(budget=0.5), rows=0.25)")
    >>> saved_bytes(both.compress(x)) - saved_bytes(first.compress(x)), both.macs(400, 16, 4) / first.macs(400, 16, 4)
    (8, 0.25)
    >>> by_pairs, by_rows = make('subsampled(of=exact, rows=80, design="sampford")'), make("sampford(budget=80)")
    >>> bool(by_pairs.variance(x, dy) < 0.01 * by_rows.variance(x, dy))
    True
    """

    of: Estimator
    rows: int | float | str = 0.5
    design: str = "systematic"

    published: ClassVar[Published] = Published("Särndal, Swensson & Wretman 1992", unbiased=True)
    # of an instance: what it inherits is that of the estimator inside
    traits: ClassVar[Traits] = Traits(
        family="composite",
        unbiased=True,
        deterministic=False,
        uses_scores=True,
        exact_at_full_budget=False,
        linear_in_dy=False,
    )

    def __post_init__(self) -> None:
        known = isinstance(self.of, Estimator) and isinstance(self.of, StoredPairs)
        if not known or not (isinstance(self.of, SourcedEstimator) or self.of.traits.deterministic):
            raise InputError(
                f"subsampled: of={self.of!r} must be an estimator with stored pairs: exact, a row design, "
                "quantized_rows or dithered_rows"
            )
        _check_rows(self.rows)
        check_choice("design", self.design, DESIGNS, self.name)
        of = self.of.traits
        own = replace(self.traits, unbiased=of.unbiased, uses_scores=of.uses_scores, uses_support=of.uses_support)
        object.__setattr__(self, "traits", own)  # frozen
        if self.of.saved_type is not None:
            _saved_type(self.of.saved_type)

    def keep(self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"], source: RandomChoices) -> Any:
        """What `of` keeps, and a seed for the second stage."""
        if isinstance(self.of, SourcedEstimator):
            inner = self.of.keep(x, scores, source)
        else:  # draws nothing
            inner = self.of.compress(x, scores=scores)
        return _saved_type(type(inner))(*inner, source.seeded()[0])

    def unlisted(self) -> str | None:
        """The two stages are not listed together."""
        return f"{self!r} draws a second plan in the backward pass: its outcomes are listed stage by stage only"

    def contract(self, saved: Any, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """Draw k₂ of the stored pairs and add them up (see `Estimator.contract`)."""
        check_matrix("dy", dy)
        inner, seed = first_stage(saved)
        stage = self.second_stage(inner, dy)
        if stage is None:
            return self.of.contract(inner, dy)
        count = stage.design.uniforms(stage.scores.shape[0])
        numbers = CounterStream(seed).uniforms(_KEYS, torch.arange(count, device=dy.device))
        return self.contract_plan(inner, dy, stage, stage.design.plan(stage.scores, numbers))

    def contract_plan(
        self, inner: Any, dy: Float[Tensor, "n m"], stage: SecondStage, plan: RowPlan
    ) -> Float[Tensor, "m d"]:
        """The estimate with the slots of a plan, each times its weight 1/π."""
        factors = torch.where(stage.finite, plan.weights, torch.nan)
        return self._pairs.contract_slots(inner, dy, plan.indices, factors)

    def second_stage(self, inner: Any, dy: Float[Tensor, "n m"]) -> SecondStage | None:
        """How pairs are drawn; None if all are multiplied.

        Args:
            inner: what `of` has kept, see `first_stage`.
            dy: as in `contract`.
        """
        k = self._pairs.pair_slots(dy.shape[0])
        counted = self.rows == "auto"
        if (counted and not has_values(dy)) or (not isinstance(self.rows, str) and rows_for(self.rows, k) >= k):
            return None
        norms = self._pairs.slot_norms(inner, dy)
        if norms.shape[0] == 0:
            return None
        largest = norms.amax()
        finite = largest.isfinite()
        unit = torch.where(finite & (largest > 0), largest, 1.0)
        scores = torch.where(finite, norms / unit, 1.0)
        if not counted:
            return SecondStage(self._of_size(rows_for(self.rows, k)), scores, finite)  # type: ignore[arg-type]
        if not bool(finite):
            return None
        allowed = ADDED * self._pairs.variance_estimate(inner, dy) / unit.square()
        least = int(least_rows(scores, allowed))
        return None if least > WORTHWHILE * k else SecondStage(self._of_size(max(least, 1)), scores, finite)

    def conditional_variance(self, saved: Any, dy: Float[Tensor, "n m"]) -> Float64[Tensor, ""]:
        """`Var(Ĝ₂ | stored)` in fp64, O(k²) memory; what a product in int8 adds is not in it.

        Args:
            saved: what `compress` returned.
            dy: as in `contract`.

        Raises:
            NoClosedForm: if the design has no joint inclusion probabilities, as "systematic" and "pivotal".
        """
        inner, _ = first_stage(saved)
        stage = self.second_stage(inner, dy)
        if stage is None:
            return torch.zeros((), dtype=torch.float64, device=dy.device)
        stored = self._pairs.stored_rows(inner)
        covariance = stage.design.moments(stage.scores).covariance
        return coefficient_variance(covariance, stored.rows, dy.index_select(0, stored.indices))

    def macs(self, n: int, d: int, m: int) -> int:
        """Those of `of`, less what the slots that are left out take, and those of the draw.

        Raises:
            NoClosedForm: for `rows="auto"`, or if `of` states none.
        """
        if isinstance(self.rows, str):
            raise NoClosedForm(f"{self!r}: how many rows are multiplied depends on their values")
        k = self._pairs.pair_slots(n)
        left_out = k - rows_for(self.rows, k)
        drawn = self._of_size(k - left_out).draw_macs(k) if left_out else 0
        return self.of.macs(n, d, m) - left_out * self._pairs.slot_macs(d, m) + drawn

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """That of `of`."""
        return self.of.expectation(x, dy, scores=scores)

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`conditional_variance` where the first stage draws nothing.

        Raises:
            NoClosedForm: if it draws, or as `conditional_variance`.
        """
        if not self.of.traits.deterministic:
            raise NoClosedForm(f"{self!r}: the second stage depends on what the first one draws; use Monte Carlo")
        return self.conditional_variance(self.compress(x, scores=scores, generator=_unused(x)), dy)

    @property
    def _pairs(self) -> StoredPairs:
        assert isinstance(self.of, StoredPairs)
        return self.of

    def _of_size(self, rows: int) -> FixedSizeEstimator:
        return DESIGNS[self.design](budget=max(rows, 1))


def first_stage(saved: Any) -> tuple[Any, Tensor]:
    """What the inner estimator has kept, and the seed of the second stage."""
    *inner, seed = saved
    return type(saved).inner(*inner), seed


def least_rows(norms: Float64[Tensor, " k"], allowed: Float64[Tensor, ""]) -> Int[Tensor, ""]:
    """The least number of pairs, as the docstring of the class derives it, with `Σ (1/π − 1) v² ≤ allowed`.

    Args:
        norms: v ≥ 0.
        allowed: ≥ 0; with 0 all pairs of positive norm are needed.
    """
    ranking = rank_rows(norms)
    left = ranking.remainder
    squares = rank_rows(norms.square()).remainder
    bound = squares + allowed
    draws = torch.where(left > 0, (left.square() / torch.where(bound > 0, bound, 1.0)).ceil(), 0.0)
    largest_left = torch.cat([ranking.scores, ranking.scores.new_zeros(1)])
    taken = torch.arange(left.shape[0], device=norms.device)
    return torch.where(largest_left * draws <= left, taken + draws, float(norms.shape[0])).amin().to(torch.int64)


def _check_rows(rows: int | float | str) -> None:
    if isinstance(rows, str) and rows == "auto":
        return
    number = isinstance(rows, (int, float)) and not isinstance(rows, bool)
    if not number or not (rows >= 1 if isinstance(rows, int) else 0.0 < rows <= 1.0):  # type: ignore[operator]
        raise InputError(
            f"subsampled: rows={rows!r} must be a float in (0, 1] (fraction of the slots), an int ≥ 1 (number of "
            'slots) or "auto"'
        )


def _unused(x: Tensor) -> torch.Generator:
    """For the seed of a second stage that is not drawn: torch's own numbers are left alone."""
    return torch.Generator(x.device).manual_seed(0)


def _saved_type(inner: Any) -> Any:
    """A NamedTuple of the tensors of the inner estimator's `Saved` and the seed."""
    return wrapping_saved("SavedSubsampled", (*inner._fields, "second_stage_seed"), inner)
