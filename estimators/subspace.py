"""Directions of the feature axis: how many, the principal ones, and random ones in general position."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from wtacrs.estimators.budget import rows_for
from wtacrs.estimators.counter_rng import CounterStream, Source
from wtacrs.estimators.errors import InputError
from wtacrs.estimators.seeded import normalised, only, operator_blocks, working_dtype

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
    x: Float[Tensor, "n d"], support: Shaped[Tensor, " n"], rank: int
) -> Float[Tensor, "d r"]:
    """Orthonormal directions near the leading right singular vectors of the supported rows.

    Three subspace iterations from a fixed start, so that they are a function of x alone: a few percent from the
    best ones where singular values differ, and any ones where they do not.
    """
    rows, _ = normalised(only(x.to(working_dtype(x.dtype)), support))
    start = CounterStream(torch.zeros(1, dtype=torch.int64, device=x.device))
    directions = torch.linalg.qr(random_matrix(start, START, x.shape[1], rank, rows))[0]
    for _ in range(_ITERATIONS):
        directions = torch.linalg.qr(rows.T @ (rows @ directions))[0]
    return directions


def search_multiplications(n: int, d: int, rank: int) -> int:
    """Of `principal_directions`, in matrix products: two passes over the rows in each iteration."""
    return 2 * _ITERATIONS * n * d * rank


def random_matrix(
    source: Source, stream: int, rows: int, columns: int, like: Tensor
) -> Float[Tensor, "rows columns"]:
    """Independent standard normal entries."""
    blocks = [block for _, block in operator_blocks("gaussian", source, stream, rows, columns, like)]
    return torch.cat(blocks) if blocks else like.new_zeros((rows, columns))
