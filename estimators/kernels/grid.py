"""Columns of a matrix in groups, and a small rotation of every 16 of them: the layout that the kernels share.

d columns are padded with zeros to `groups` groups of `size` columns: of 64, or one group of 16, 32 or 48 below that.
A group's codes of 4 or 2 bits lie in planes: byte j of a group holds columns j, j + w, j + 2w, …, w = size·bits/8, the
first one lowest, so that packing and unpacking are shifts of whole vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 16
"""Columns that are rotated together."""
GROUP = 64
"""Columns that share a step."""
# of the 16 columns of a block: fixed, since what is stored is rounded without bias by itself
_SIGNS = (1, -1, -1, 1, 1, 1, -1, 1, -1, 1, 1, -1, -1, -1, 1, -1)


class Grid(NamedTuple):
    """Groups of columns.

    Attributes:
        columns: d.
        groups: number of groups.
        size: columns of each.
    """

    columns: int
    groups: int
    size: int

    @property
    def padded(self) -> int:
        """Columns with the zeros at the end."""
        return self.groups * self.size


def grid_of(d: int) -> Grid:
    """The groups of d columns.

    >>> grid_of(1024), grid_of(100), grid_of(20)
    (Grid(columns=1024, groups=16, size=64), Grid(columns=100, groups=2, size=64), Grid(columns=20, groups=1, size=32))
    """
    if d == 0:
        return Grid(0, 0, GROUP)
    size = min(GROUP, -(-d // BLOCK) * BLOCK)
    return Grid(d, -(-d // size), size)


class Rotation(NamedTuple):
    """An orthogonal matrix `[d, d]` of small blocks on its diagonal, of 16 columns but for the last ones.

    Attributes:
        whole: of every 16 columns.
        last: of what is left, its blocks of 8, 4, 2 and 1 columns, zeros beyond; None where nothing is.
    """

    whole: Float[Tensor, "16 16"]
    last: Float[Tensor, "16 16"] | None

    @property
    def back(self) -> Rotation:
        """The transposed matrix."""
        return Rotation(self.whole.T.contiguous(), None if self.last is None else self.last.T.contiguous())


def rotation_of(d: int, like: Tensor) -> Rotation:
    """`diag(signs) H` of every block, H its Hadamard matrix over √size."""
    last, start = None, 0
    if d % BLOCK:
        last = like.new_zeros((BLOCK, BLOCK))
        for size in (8, 4, 2, 1):
            if d % BLOCK & size:
                last[start : start + size, start : start + size] = _signed_hadamard(size, like)
                start += size
    return Rotation(_signed_hadamard(BLOCK, like), last)


def _signed_hadamard(size: int, like: Tensor) -> Float[Tensor, "s s"]:
    matrix = like.new_ones((1, 1))
    while matrix.shape[0] < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix * (like.new_tensor(_SIGNS[:size]) * size**-0.5).unsqueeze(1)


def rotate(
    rows: Float[Tensor, "k p"], rotation: Rotation, grid: Grid, out: Float[Tensor, "k p"] | None = None
) -> Float[Tensor, "k p"]:
    """The rows times the matrix; what stands behind column d is rotated too, or becomes 0."""
    out = torch.empty_like(rows) if out is None else out
    torch.mm(rows.view(-1, BLOCK), rotation.whole, out=out.view(-1, BLOCK))
    if rotation.last is not None:
        start = grid.columns // BLOCK * BLOCK
        out[:, start : start + BLOCK] = rows[:, start : start + BLOCK] @ rotation.last
    return out


def group_peaks(rows: Float[Tensor, "k p"], grid: Grid) -> Float[Tensor, "k groups"]:
    """The largest of the absolute numbers of every group."""
    return rows.view(rows.shape[0], grid.groups, grid.size).abs().amax(2)
