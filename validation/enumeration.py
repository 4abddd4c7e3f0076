"""Exact moments of an estimator by listing every outcome of its draw: no sampling error, no theory.

A row design is a deterministic function of independent uniform numbers, piecewise constant between its `cuts`.
Walking through the cells between the cuts, number by number, meets every outcome; its probability is the product
of the cell lengths. Each outcome runs the design's own `plan`, `keep_rows` and `contract`. The outcomes of
estimators whose operator comes from a seed are listed by `wtacrs.validation.seeded_outcomes`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise, permutations
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators import Estimator, InputError, RowEstimator, sampling_scores
from wtacrs.estimators.rows import RowPlan, keep_rows
from wtacrs.estimators.scores import check_rows_agree
from wtacrs.estimators.seeded import SeededEstimator
from wtacrs.validation.seeded_outcomes import seeded_outcomes

# cuts that ought to coincide differ by a few roundings; the sliver between them is no outcome
_SLIVER = 1e-15
# how far inside a cell its ends are probed: beyond the rounding of the cut itself
_INSET = 1e-14


class WrongCuts(RuntimeError):
    """A design's plan changes inside a cell between two of its declared cuts."""


class ExactMoments(NamedTuple):
    """Moments over all outcomes.

    Attributes:
        mean: `E Ĝ`.
        variance: total variance `E‖Ĝ − EĜ‖²_F`.
        coefficient_mean: `E c` of the coefficient vector of a row design, None for other estimators.
        coefficient_covariance: `Cov c`, None for other estimators.
        outcomes: number of outcomes with positive probability.
        probability: their total probability, 1 up to rounding.
    """

    mean: Float64[Tensor, "m d"]
    variance: float
    coefficient_mean: Float64[Tensor, " n"] | None
    coefficient_covariance: Float64[Tensor, "n n"] | None
    outcomes: int
    probability: float


class Cell(NamedTuple):
    """A box of uniform numbers on which the plan is constant; `factor` times its volume is its probability."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    factor: float = 1.0

    @property
    def probability(self) -> float:
        """Volume of the box, times the factor."""
        product = self.factor
        for low, high in zip(self.low, self.high, strict=True):
            product *= high - low
        return product


def can_enumerate(estimator: Estimator) -> str | None:
    """None if `enumerate_moments` applies to this estimator, else the reason why not."""
    if estimator.traits.deterministic:
        return None
    if isinstance(estimator, SeededEstimator):
        return _why_unlisted(estimator)
    if not isinstance(estimator, RowEstimator):
        return f"{estimator!r} is random and no RowEstimator: its outcomes cannot be listed"
    cls = type(estimator)
    if cls.compress is not RowEstimator.compress or cls.draw is not RowEstimator.draw:
        return f"{estimator!r} overrides compress or draw: its plan alone does not say what it does"
    if cls.cuts is RowEstimator.cuts:
        return f"{estimator!r} does not define cuts: its outcomes cannot be listed"
    return None


def _why_unlisted(estimator: SeededEstimator) -> str | None:
    cls = type(estimator)
    if cls.compress is not SeededEstimator.compress:
        return f"{estimator!r} overrides compress: its operator alone does not say what it does"
    return None if estimator.unlisted is None else f"{estimator!r}: {estimator.unlisted}"


@torch.no_grad()
def enumerate_moments(
    estimator: Estimator,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    *,
    scores: Shaped[Tensor, " n"] | None = None,
    limit: int = 200_000,
) -> ExactMoments:
    """Exact mean and variance of an estimate, and of the coefficients of a row design.

    Args:
        estimator: deterministic (one outcome), a `RowEstimator` with `cuts`, or a `SeededEstimator`.
        x: input rows; give fp64 to keep the rounding of the estimate itself out of the moments.
        dy: output gradients.
        scores: as in `Estimator.compress`.
        limit: largest number of outcomes that is tried.

    Raises:
        InputError: if the estimator cannot be enumerated or has more than `limit` outcomes.
        WrongCuts: if the plan is not constant between the declared cuts.
    """
    check_rows_agree(x, dy)
    reason = can_enumerate(estimator)
    if reason is not None:
        raise InputError(reason)
    if isinstance(estimator, SeededEstimator) and not estimator.traits.deterministic:
        return _seeded_moments(estimator, x, dy, sampling_scores(x, scores) > 0, limit)
    if not isinstance(estimator, RowEstimator):
        product = estimator.contract(estimator.compress(x, scores=scores), dy).double()
        return ExactMoments(product, 0.0, None, None, 1, 1.0)
    ready = sampling_scores(x, scores)
    cells = list(_cells(estimator, ready, limit))
    mean, coefficients = _Moments(), _Moments(covariance=True)
    for cell in cells:
        plan = _constant_plan(estimator, ready, cell)
        mean.add(estimator.contract(keep_rows(x, plan), dy).double(), cell.probability)
        coefficients.add(_coefficients(plan, ready), cell.probability)
    return ExactMoments(
        mean.mean, mean.total_variance(), coefficients.mean, coefficients.matrix(), len(cells), mean.weight
    )


def _seeded_moments(
    estimator: SeededEstimator, x: Tensor, dy: Tensor, support: Tensor, limit: int
) -> ExactMoments:
    mean, outcomes = _Moments(), 0
    for estimate, probability in seeded_outcomes(estimator, x, dy, support, limit):
        mean.add(estimate, probability)
        outcomes += 1
    return ExactMoments(mean.mean, mean.total_variance(), None, None, outcomes, mean.weight)


class _Moments:
    """Weighted mean and (total or full) covariance, updated one outcome at a time without cancellation."""

    def __init__(self, covariance: bool = False) -> None:
        self.weight = 0.0
        self.full = covariance

    def add(self, value: Tensor, probability: float) -> None:
        if self.weight == 0.0:
            self.mean = torch.zeros_like(value)
            self.spread = value.new_zeros(value.numel(), value.numel()) if self.full else value.new_zeros(())
        self.weight += probability
        before = value - self.mean
        self.mean = self.mean + before * (probability / self.weight)
        after = value - self.mean
        product = torch.outer(before, after) if self.full else (before * after).sum()
        self.spread += probability * product

    def total_variance(self) -> float:
        return max(float(self.spread) / self.weight, 0.0)

    def matrix(self) -> Tensor:
        return (self.spread + self.spread.T) / (2 * self.weight)


def _coefficients(plan: RowPlan, scores: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    return torch.zeros_like(scores).index_add(0, plan.indices, plan.weights.double())


def _cells(estimator: RowEstimator, scores: Float64[Tensor, " n"], limit: int) -> Iterator[Cell]:
    """Every cell of positive probability, depth first."""
    numbers = estimator.uniforms(scores.shape[0])
    found = 0
    too_many = InputError(
        f"{estimator!r} has more than limit={limit} outcomes on n={scores.shape[0]} rows "
        f"({numbers} uniform numbers); enumerate a smaller problem or raise limit"
    )
    if math.factorial(estimator.keys(scores.shape[0])) > limit:
        raise too_many
    stack = list(_orders(estimator.keys(scores.shape[0])))
    while stack:
        # every waiting cell holds at least one outcome, so a hopeless walk stops at its first branches
        if found + len(stack) > limit:
            raise too_many
        cell = stack.pop()
        if len(cell.low) == numbers:
            found += 1
            yield cell
            continue
        edges = _edges(estimator.cuts(scores, _midpoint(cell, scores)))
        stack.extend(
            Cell((*cell.low, low), (*cell.high, high), cell.factor)
            for low, high in pairwise(edges)
            if high - low > _SLIVER
        )


def _orders(count: int) -> Iterator[Cell]:
    """One box for every order of `count` keys, each key in a stratum of its own; by symmetry for all keys."""
    factor = math.prod((count / rank for rank in range(1, count + 1)), start=1.0)
    for ranks in permutations(range(count)):
        yield Cell(tuple(r / count for r in ranks), tuple((r + 1) / count for r in ranks), factor)


def _edges(cuts: Tensor) -> list[float]:
    return sorted({0.0, 1.0, *(min(max(cut, 0.0), 1.0) for cut in cuts.tolist())})


def _midpoint(cell: Cell, like: Float64[Tensor, " n"]) -> Float64[Tensor, " q"]:
    return like.new_tensor([(low + high) / 2 for low, high in zip(cell.low, cell.high, strict=True)])


def _constant_plan(estimator: RowEstimator, scores: Float64[Tensor, " n"], cell: Cell) -> RowPlan:
    """The plan at the cell's midpoint, after checking it near the cell's corners."""
    plan = estimator.plan(scores, _midpoint(cell, scores))
    reference = _coefficients(plan, scores)
    for corner in _corners(cell):
        probe = _coefficients(estimator.plan(scores, scores.new_tensor(corner)), scores)
        if not (torch.equal(probe, reference) or torch.allclose(probe, reference, rtol=1e-9, atol=0.0)):
            raise WrongCuts(
                f"{estimator!r}: the plan changes between two cuts: coefficients {reference.tolist()} in the "
                f"middle of the cell {cell.low} … {cell.high}, {probe.tolist()} at {corner}"
            )
    return plan


def _corners(cell: Cell) -> Iterator[list[float]]:
    """Points near corners of the box, so that every two numbers meet in all four combinations of low and high."""
    inset = [_inset(low, high) for low, high in zip(cell.low, cell.high, strict=True)]
    low = [a + e for a, e in zip(cell.low, inset, strict=True)]
    high = [b - e for b, e in zip(cell.high, inset, strict=True)]
    if not low:
        return
    yield low
    yield high
    # two different positions differ in some binary digit: that digit puts one high and the other low
    for digit in range((len(low) - 1).bit_length()):
        for side in (0, 1):
            yield [high[j] if (j >> digit) & 1 == side else low[j] for j in range(len(low))]


def _inset(low: float, high: float) -> float:
    return min((high - low) / 2, max(1e-6 * (high - low), _INSET))
