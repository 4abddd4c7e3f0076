"""Dither for a matrix from one number per row and one per column: n + d random numbers in place of n·d.

`u_ij = (r_i + s_j) mod 1` with independent uniform numbers r and s. Each u_ij is uniform on [0, 1), and any two of them
are independent: two of one row because s_j and s_l are, two of one column because r_i and r_h are, others because no
number is shared. Given s, numbers of different rows are independent, and each is uniform.

So a rounding whose error e_ij is a function of u_ij alone has the means, variances and covariances that it has with n·d
independent numbers. A sum `Σ_i y_ia e_ij` of errors that have mean 0 therefore has the variance `Σ_i y_ia² E e_ij²`,
whatever s is. Not the same are moments of order four, and with them how much the squared error of one draw scatters.

Numbers are multiples of 2⁻²³ (fp64: 2⁻⁵²): the sum of two, which is below 2, is exact, and so is its fractional part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wtacrs.estimators.core.counter_rng import Source

Places = Callable[[Float[Tensor, " d"]], Float[Tensor, "n d"]]
"""Where numbers lie among the levels once a column's number is added: for enumeration, which cuts r there."""


class Dither(NamedTuple):
    """The numbers of rows and columns."""

    rows: Float[Tensor, " n"]
    columns: Float[Tensor, " d"]

    def of(self, rows: slice | Int[Tensor, " k"]) -> Dither:
        """That of some of the rows."""
        return Dither(
            self.rows[rows] if isinstance(rows, slice) else self.rows.index_select(0, rows), self.columns
        )


def draw_dither(
    source: Source,
    streams: tuple[int, int],
    rows: int | Int[Tensor, " n"],
    columns: int,
    like: Float[Tensor, ...],
    places: Places | None = None,
) -> Dither:
    """Numbers for a matrix of so many rows and columns, in the dtype (fp32 or fp64) and on the device of `like`.

    Args:
        source: of the numbers; the same streams give the same ones again.
        streams: of the source, for rows and for columns.
        rows: n, or the addresses of n rows; `n` stands for 0 … n − 1.
        columns: d.
        like: dtype and device.
        places: see `Places`; not needed where the same numbers are asked for again.
    """
    of_columns = _on_grid(source.offsets(streams[1], torch.arange(columns, device=like.device)), like.dtype)
    asked = None if places is None else lambda: places(of_columns)
    addresses = torch.arange(rows, device=like.device) if isinstance(rows, int) else rows
    of_rows = source.uniforms(streams[0], addresses, asked)
    return Dither(_on_grid(of_rows, like.dtype), of_columns)


def _on_grid(numbers: Float[Tensor, " k"], dtype: torch.dtype) -> Float[Tensor, " k"]:
    levels = 2.0**52 if dtype == torch.float64 else 2.0**23
    return (numbers.double() * levels).floor().mul_(1.0 / levels).to(dtype)
