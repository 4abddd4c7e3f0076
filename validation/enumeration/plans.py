"""Listing the plans of a row design: a deterministic function of uniform numbers, constant between its `cuts`.

Walking through the cells between the cuts, number by number, meets every outcome; its probability is the product
of the cell lengths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise, permutations
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from wtacrs.estimators import InputError
from wtacrs.estimators.core.row_design import RowDesign, RowPlan

# cuts that ought to coincide differ by a few roundings; the sliver between them is no outcome
_SLIVER = 1e-15
# how far inside a cell its ends are probed: beyond the rounding of the cut itself
_INSET = 1e-14


class WrongCuts(RuntimeError):
    """A design's plan changes inside a cell between two of its declared cuts."""


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


def listed_plans(design: RowDesign, scores: Float64[Tensor, " n"], limit: int) -> Iterator[tuple[RowPlan, float]]:
    """Every outcome of a draw and its probability; some may be equal.

    Args:
        design: one that defines `cuts`.
        scores: as `plan` takes them.
        limit: largest number of outcomes that is tried.

    Raises:
        InputError: if there are more than `limit`.
        WrongCuts: if the plan is not constant between the declared cuts.
    """
    for cell in list(_cells(design, scores, limit)):
        yield _constant_plan(design, scores, cell), cell.probability


def plan_coefficients(plan: RowPlan, scores: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """The coefficient of every row: the sum of the weights of its slots."""
    return torch.zeros_like(scores).index_add(0, plan.indices, plan.weights.double())


def _cells(design: RowDesign, scores: Float64[Tensor, " n"], limit: int) -> Iterator[Cell]:
    """Every cell of positive probability, depth first."""
    numbers = design.uniforms(scores.shape[0])
    found = 0
    too_many = InputError(
        f"{design!r} has more than limit={limit} outcomes on n={scores.shape[0]} rows "
        f"({numbers} uniform numbers); enumerate a smaller problem or raise limit"
    )
    if math.factorial(design.keys(scores.shape[0])) > limit:
        raise too_many
    stack = list(_orders(design.keys(scores.shape[0])))
    while stack:
        # every waiting cell holds at least one outcome, so a hopeless walk stops at its first branches
        if found + len(stack) > limit:
            raise too_many
        cell = stack.pop()
        if len(cell.low) == numbers:
            found += 1
            yield cell
            continue
        edges = _edges(design.cuts(scores, _midpoint(cell, scores)))
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


def _constant_plan(design: RowDesign, scores: Float64[Tensor, " n"], cell: Cell) -> RowPlan:
    """The plan at the cell's midpoint, after checking it near the cell's corners."""
    plan = design.plan(scores, _midpoint(cell, scores))
    reference = plan_coefficients(plan, scores)
    for corner in _corners(cell):
        probe = plan_coefficients(design.plan(scores, scores.new_tensor(corner)), scores)
        if not (torch.equal(probe, reference) or torch.allclose(probe, reference, rtol=1e-9, atol=0.0)):
            raise WrongCuts(
                f"{design!r}: the plan changes between two cuts: coefficients {reference.tolist()} in the "
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
