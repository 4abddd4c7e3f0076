"""Exact moments of an estimator by listing every outcome of its draw: no sampling error, no theory.

Every outcome runs the estimator's own code on listed random choices instead of drawn ones:

- row designs: the cells between their `cuts` (`wtacrs.validation.enumeration.plans`);
- operators from a seed: the values of their `Source` (`wtacrs.validation.enumeration.sources`);
- roundings, alone or of the rows of a design: a rule for their uniform numbers between the places where a code
  changes (`wtacrs.validation.enumeration.sources`), every number by itself (`wtacrs.validation.enumeration.composites`);
- composites that wrap one of these: they run as they are, around the listed one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators import Estimator, InputError, RowEstimator, sampling_scores
from wtacrs.estimators.core.checks import check_rows_agree
from wtacrs.estimators.core.sourced import SourcedEstimator
from wtacrs.validation.enumeration.composites import Listing
from wtacrs.validation.enumeration.plans import WrongCuts, listed_plans, plan_coefficients
from wtacrs.validation.enumeration.sources import GivenPlan
from wtacrs.validation.enumeration.weighted_moments import WeightedMoments

__all__ = ["ExactMoments", "WrongCuts", "can_enumerate", "enumerate_moments"]


class ExactMoments(NamedTuple):
    """Moments over all outcomes.

    Attributes:
        mean: `E Ĝ`.
        variance: total variance `E‖Ĝ − EĜ‖²_F`.
        coefficient_mean: `E c` of the coefficient vector of a row design, None for other estimators.
        coefficient_covariance: `Cov c`, None for other estimators.
        outcomes: number of outcomes with positive probability; of a rounding, answers listed for one number at a time.
        probability: their total probability, 1 up to rounding.
    """

    mean: Float64[Tensor, "m d"]
    variance: float
    coefficient_mean: Float64[Tensor, " n"] | None
    coefficient_covariance: Float64[Tensor, "n n"] | None
    outcomes: int
    probability: float


def can_enumerate(estimator: Estimator) -> str | None:
    """None if `enumerate_moments` applies to this estimator, else the reason why not."""
    if estimator.traits.deterministic:
        return None
    if estimator.random_part is not None:
        return can_enumerate(getattr(estimator, estimator.random_part))
    if not isinstance(estimator, SourcedEstimator):
        return f"{estimator!r} is random and no SourcedEstimator: its outcomes cannot be listed"
    cls = type(estimator)
    if cls.compress is not SourcedEstimator.compress:
        return f"{estimator!r} overrides compress: its keep alone does not say what it does"
    if _contracts_past_finish(cls):
        return f"{estimator!r} overrides contract: its finish alone does not say what it does"
    return estimator.unlisted()


def _contracts_past_finish(cls: type[SourcedEstimator]) -> bool:
    """Whether `contract` is overridden below a `finish` of its own, which then need not be what it does."""
    order = cls.__mro__
    contract, finish = (next(c for c in order if name in vars(c)) for name in ("contract", "finish"))
    return finish is not SourcedEstimator and order.index(contract) < order.index(finish)


@torch.no_grad()
def enumerate_moments(
    estimator: Estimator,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    *,
    scores: Shaped[Tensor, " n"] | None = None,
    limit: int = 200_000,
    combinations: bool = False,
) -> ExactMoments:
    """Exact mean and variance of an estimate, and of the coefficients of a row design.

    Args:
        estimator: one that `can_enumerate` accepts.
        x: input rows; give fp64 to keep the rounding of the estimate itself out of the moments.
        dy: output gradients.
        scores: as in `Estimator.compress`.
        limit: largest number of outcomes that is tried.
        combinations: list every combination of rounded numbers, instead of every number by itself.

    Raises:
        InputError: if the estimator cannot be enumerated or has more than `limit` outcomes.
        WrongCuts: if a plan or a rounding changes where it is not declared to.
    """
    check_rows_agree(x, dy)
    reason = can_enumerate(estimator)
    if reason is not None:
        raise InputError(reason)
    if isinstance(estimator, RowEstimator):
        return _row_moments(estimator, x, dy, sampling_scores(x, scores), limit)
    if estimator.traits.deterministic:
        product = estimator.contract(estimator.compress(x, scores=scores), dy).double()
        return ExactMoments(product, 0.0, None, None, 1, 1.0)
    listing = Listing(estimator, x, dy, scores, limit)
    found = listing.moments(combinations)
    return ExactMoments(found.mean, found.total_variance(), None, None, listing.outcomes, found.weight)


def _row_moments(
    estimator: RowEstimator, x: Tensor, dy: Tensor, scores: Float64[Tensor, " n"], limit: int
) -> ExactMoments:
    found, coefficients, outcomes = WeightedMoments(), WeightedMoments(covariance=True), 0
    for plan, probability in listed_plans(estimator, scores, limit):
        found.add(estimator.contract(estimator.keep(x, scores, GivenPlan(plan)), dy).double(), probability)
        coefficients.add(plan_coefficients(plan, scores), probability)
        outcomes += 1
    return ExactMoments(
        found.mean,
        found.total_variance(),
        coefficients.mean,
        coefficients.matrix(),
        outcomes,
        found.weight,
    )
