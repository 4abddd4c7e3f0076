"""How rows are drawn: a plan, the rows to keep and their weights, as a function of independent uniform numbers.

One function serves training (the numbers come from a generator), exact enumeration (they run through every cell between
the design's `cuts`), and comparison with a slow twin (both get the same numbers).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from wtacrs.estimators.core.counter_rng import uniform_numbers


class RowPlan(NamedTuple):
    """The k rows to keep and their weights; a row may stand in several slots.

    A slot that is not needed (fewer rows with positive score than slots) has weight 0 and repeats the row with
    the largest score, so that shapes stay fixed and no row of score 0 is ever touched.

    Attributes:
        indices: `[k]`, integers from 0 to n − 1: the row in every slot.
        weights: `[k]`, fp64: what the row is multiplied by; unbiased if the weights of every row add up to 1 in the mean.
    """

    indices: Int[Tensor, " k"]
    weights: Float64[Tensor, " k"]


class RowDesign(ABC):
    """How rows are drawn: a plan as a function of independent uniform numbers."""

    @abstractmethod
    def uniforms(self, n: int) -> int:
        """How many uniform numbers one draw from `n` rows consumes."""

    def keys(self, n: int) -> int:
        """How many of these numbers, the first ones, matter by their order alone: for enumeration."""
        return 0

    @abstractmethod
    def plan(self, scores: Float64[Tensor, " n"], uniforms: Float64[Tensor, " q"]) -> RowPlan:
        """Choose rows and weights from checked scores and q = `self.uniforms(n)` numbers in [0, 1)."""

    def cuts(self, scores: Float64[Tensor, " n"], chosen: Float64[Tensor, " j"]) -> Float64[Tensor, " c"]:
        """Where `plan` may change as uniform number j runs through (0, 1), given the numbers before it.

        Between two neighbouring cuts the plan must be constant. Enumeration needs this; sampling does not.
        """
        raise NotImplementedError(f"{self!r} does not say where its plan changes and cannot be enumerated")

    def draw(self, scores: Float64[Tensor, " n"], generator: torch.Generator | None = None) -> RowPlan:
        """A random plan for checked scores (see `sampling_scores`)."""
        shape = (self.uniforms(scores.shape[0]),)
        return self.plan(scores, uniform_numbers(shape, torch.float64, scores.device, generator))
