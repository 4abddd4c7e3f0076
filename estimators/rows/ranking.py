"""Rows in order of score, and what is left after the heaviest of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float64, Int
from torch import Tensor


class Ranking(NamedTuple):
    """Rows in order of falling score, and what is left after the first c of them."""

    scores: Float64[Tensor, " n"]
    order: Int[Tensor, " n"]
    remainder: Float64[Tensor, " n+1"]  # remainder[c] = Σ of the scores after the first c


def rank_rows(scores: Float64[Tensor, " n"]) -> Ranking:
    """Sort by falling score (ties: earlier row first) and sum what remains after each rank."""
    ordered, order = torch.sort(scores, descending=True, stable=True)
    remainder = torch.cat([ordered.flip(0).cumsum(0).flip(0), ordered.new_zeros(1)])
    return Ranking(ordered, order, remainder)
