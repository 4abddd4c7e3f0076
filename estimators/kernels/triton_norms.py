"""Row norms by Triton, of rows and of rows less their mean in one pass over them."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# arguments of a jitted kernel are pointers and numbers of the device, which have no types here
from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Float64
from torch import Tensor

INTERPRETED = bool(triton.knobs.runtime.interpret)
_SHAPES = [
    triton.Config({"ROWS": rows, "WIDTH": width}, num_warps=warps)
    for rows, width, warps in ((1, 1024, 4), (4, 256, 4), (8, 128, 4), (16, 128, 8))
]


# tuning needs a device; the interpreter takes one shape
@triton.autotune(configs=_SHAPES[2:3] if INTERPRETED else _SHAPES, key=["columns"])
@triton.jit
def _norms(x, mean, live, residual, own, rows, columns, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    there = (row < rows) & (tl.load(live + row, mask=row < rows, other=0) != 0)
    squares, squares_own = tl.zeros((ROWS,), tl.float64), tl.zeros((ROWS,), tl.float64)
    for start in range(0, columns, WIDTH):
        column = start + tl.arange(0, WIDTH)
        both = there[:, None] & (column < columns)[None, :]
        numbers = tl.load(x + row.to(tl.int64)[:, None] * columns + column[None, :], mask=both, other=0.0)
        numbers = numbers.to(tl.float32)
        centre = tl.load(mean + column, mask=column < columns, other=0.0).to(tl.float32)
        less = tl.where(both, numbers - centre[None, :], 0.0).to(tl.float64)
        numbers = numbers.to(tl.float64)
        squares += tl.sum(less * less, axis=1)
        squares_own += tl.sum(numbers * numbers, axis=1)
    tl.store(residual + row, tl.sqrt(squares), mask=row < rows)
    tl.store(own + row, tl.sqrt(squares_own), mask=row < rows)


def row_norms(
    x: Float[Tensor, "n d"], mean: Float[Tensor, " d"], live: Bool[Tensor, " n"]
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """`‖x_i − mean‖` and `‖x_i‖`, 0 where a row is not live; differences in fp32, sums in fp64.

    Args:
        x: rows in fp32 or less; what is not live may hold anything.
        mean: of the rows.
        live: which rows count.
    """
    n, d = x.shape
    residual, own = (torch.zeros(n, dtype=torch.float64, device=x.device) for _ in range(2))
    if n and d:
        given = (x.contiguous(), mean, live.view(torch.uint8), residual, own, n, d)
        _norms[lambda meta: (triton.cdiv(n, meta["ROWS"]),)](*given)
    return residual, own
