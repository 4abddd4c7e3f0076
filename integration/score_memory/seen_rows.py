"""A few rows of an input that are kept as they are until the backward pass, which has their rows of dY."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import BFloat16, Bool, Float, Float64, Int64
from torch import Tensor


class SeenRows(NamedTuple):
    """k rows of an input `[n, d]`.

    Attributes:
        places: of the rows in the input; −1 where there were fewer than k live rows.
        rows: in bf16, 2 bytes a number whatever the dtype of the input; what stands at a place −1 means nothing.
    """

    places: Int64[Tensor, " k"]
    rows: BFloat16[Tensor, "k d"]


def seen_rows(
    x: Float[Tensor, "n d"], mask: Bool[Tensor, " n"] | None, count: int, generator: torch.Generator
) -> SeenRows:
    """A systematic sample of the live rows: every live row has the same probability of being in it.

    Equal steps through the live rows, from a uniform start, take about as many rows from every example as it has of all.
    No host synchronisation.

    Args:
        x: the rows.
        mask: False at rows called padding; None if all are live.
        count: k ≥ 1.
        generator: source of one random number.

    >>> x = torch.arange(8.0).unsqueeze(1)
    >>> mask = torch.tensor([True] * 6 + [False] * 2)
    >>> seen_rows(x, mask, 3, torch.Generator().manual_seed(0)).places.tolist()
    [1, 3, 5]
    >>> seen_rows(x, mask, 8, torch.Generator().manual_seed(0)).places.tolist()
    [0, 1, 2, 3, 4, 5, -1, -1]
    """
    start = torch.rand((), generator=generator, device=x.device, dtype=torch.float64)
    live = torch.ones(x.shape[0], dtype=torch.bool, device=x.device) if mask is None else mask
    places = systematic_places(live, count, start)
    return SeenRows(places, x.detach().index_select(0, places.clamp(min=0)).to(torch.bfloat16))


def systematic_places(live: Bool[Tensor, " n"], count: int, start: Float64[Tensor, ""]) -> Int64[Tensor, " k"]:
    """Places of `count` live rows at equal steps, the first by `start` in [0, 1); −1 where there are fewer."""
    rank = live.long().cumsum(0)
    total = live.sum()
    steps = torch.arange(count, device=live.device, dtype=torch.float64) + start
    wanted = (steps * (total.clamp(min=count) / count)).long()
    places = torch.searchsorted(rank, wanted + 1).clamp(max=live.shape[0] - 1)
    return torch.where(wanted < total, places, -1)
