"""A few rows of an input that are kept as they are until the backward pass, which has their rows of dY."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import BFloat16, Bool, Float, Float32, Float64, Int64
from torch import Tensor

PLACE_FEATURES = 4
"""Numbers that say where a row is in its sequence (see `place_features`)."""


class SeenRows(NamedTuple):
    """k rows of an input of n rows.

    Attributes:
        places: of the rows in the input; −1 where there were fewer than k live rows.
        rows: and their `place_features`, in bf16, 2 bytes a number whatever the dtype of the input; what stands at a
            place −1 means nothing.
    """

    places: Int64[Tensor, " k"]
    rows: BFloat16[Tensor, "k features"]


def seen_rows(
    x: Float[Tensor, "*batch d"], mask: Bool[Tensor, " n"] | None, count: int, generator: torch.Generator
) -> SeenRows:
    """A systematic sample of the live rows: every live row has the same probability of being in it.

    Equal steps through the live rows, from a uniform start, take about as many rows from every example as it has of all.
    No host synchronisation.

    Args:
        x: the input, of n rows.
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
    rows = x.detach().reshape(-1, x.shape[-1])
    live = torch.ones(rows.shape[0], dtype=torch.bool, device=x.device) if mask is None else mask
    start = torch.rand((), generator=generator, device=x.device, dtype=torch.float64)
    places = systematic_places(live, count, start)
    chosen = places.clamp(min=0)
    features = place_features(x.shape[:-1], mask, x.device)
    both = torch.cat([t.index_select(0, chosen).to(torch.bfloat16) for t in (rows, features)], dim=1)
    return SeenRows(places, both)


def place_features(
    shape: torch.Size, mask: Bool[Tensor, " n"] | None, device: torch.device
) -> Float32[Tensor, "n features"]:
    """Of every row whether it is the first or the last of its sequence, and the logarithms of its distances from both.

    Padding is not counted, on whatever side it is. All are 0 where rows are not ordered as `[batch, positions]`.

    >>> place_features(torch.Size([1, 3]), None, torch.device("cpu"))[:, :2].tolist()
    [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    """
    if len(shape) != 2:
        return torch.zeros(shape.numel(), PLACE_FEATURES, device=device)
    live = torch.ones(shape, dtype=torch.bool, device=device) if mask is None else mask.reshape(shape)
    before = live.cumsum(1) - 1
    after = live.sum(1, keepdim=True) - 1 - before
    logs = [distance.clamp(min=0).float().log1p() for distance in (before, after)]
    ends = [(distance == 0).float() for distance in (before, after)]
    return torch.stack([*ends, *logs], dim=-1).reshape(-1, PLACE_FEATURES)


def systematic_places(live: Bool[Tensor, " n"], count: int, start: Float64[Tensor, ""]) -> Int64[Tensor, " k"]:
    """Places of `count` live rows at equal steps, the first by `start` in [0, 1); −1 where there are fewer."""
    rank = live.long().cumsum(0)
    total = live.sum()
    steps = torch.arange(count, device=live.device, dtype=torch.float64) + start
    wanted = (steps * (total.clamp(min=count) / count)).long()
    places = torch.searchsorted(rank, wanted + 1).clamp(max=live.shape[0] - 1)
    return torch.where(wanted < total, places, -1)
