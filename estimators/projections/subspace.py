"""Directions of the feature axis: how many, the principal ones, and random ones in general position."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from wtacrs.estimators.core.counter_rng import CounterStream, Source
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.seeded import operator_blocks, scaled_rows
from wtacrs.estimators.core.sizing import rows_for

_ITERATIONS = 3
# two streams of a source: directions, and where the search for the principal ones starts
DIRECTIONS, START = 2, 3


def check_rank(rank: int | float, owner: str) -> None:
    """Refuse a rank that is neither a fraction of the features nor a number of directions.

    Raises:
        InputError: for anything but a float in (0, 1] or an int ≥ 1.
    """
    number = isinstance(rank, (int, float)) and not isinstance(rank, bool)
    if not number or not (rank >= 1 if isinstance(rank, int) else 0.0 < rank <= 1.0):
        accepted = "a float in (0, 1] (fraction of the features) or an int ≥ 1 (number of directions)"
        raise InputError(f"{owner}: rank={rank!r} must be {accepted}")


def rank_for(rank: int | float, d: int) -> int:
    """Number of directions that a checked rank means among d features.

    >>> rank_for(0.25, 10), rank_for(3, 10), rank_for(30, 10)
    (2, 3, 10)
    """
    return rows_for(rank, d)


def principal_directions(
    x: Float[Tensor, "n d"],
    weights: Shaped[Tensor, " n"],
    rank: int,
    *,
    iterations: int = _ITERATIONS,
    start: Float[Tensor, "d r"] | None = None,
) -> Float[Tensor, "d r"]:
    """Orthonormal directions near the leading right singular vectors of `diag(√weights) X`.

    Subspace iterations, `V ← orthonormal basis of Xᵀ diag(weights) X V`, from a fixed start or a given one: a function
    of the arguments alone, a few percent from the best directions where singular values differ, and any directions
    where they do not. MACs: `2 n·d·r` per iteration.

    Args:
        x: rows; what stands in a row of weight 0 is not looked at.
        weights: ≥ 0, what each row counts; True and False for rows that are in or out.
        rank: number r of directions, at most d.
        iterations: three for directions to be kept as they are; fewer, where what is missed costs little or the start
            is near.
        start: r directions, an earlier result for example; independent normal ones, always the same, if None.
    """
    rows, _ = scaled_rows(x, weights > 0)
    if start is None:
        source = CounterStream(torch.zeros(1, dtype=torch.int64, device=x.device))
        start = random_matrix(source, START, x.shape[1], rank, rows)
    directions = torch.linalg.qr(start.to(rows.dtype))[0]
    weight = weights.to(rows.dtype).unsqueeze(1)
    for _ in range(iterations):
        directions = torch.linalg.qr(rows.T @ (weight * (rows @ directions)))[0]
    return directions


def search_macs(n: int, d: int, rank: int) -> int:
    """Of `principal_directions`, in matrix products: two passes over the rows in each iteration."""
    return 2 * _ITERATIONS * n * d * rank


def random_matrix(
    source: Source, stream: int, rows: int, columns: int, like: Tensor
) -> Float[Tensor, "rows columns"]:
    """Independent standard normal entries."""
    blocks = [block for _, block in operator_blocks("gaussian", source, stream, rows, columns, like)]
    return torch.cat(blocks) if blocks else like.new_zeros((rows, columns))
