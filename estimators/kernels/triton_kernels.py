"""Coding of rows by Triton, on CUDA: every pass reads its rows once, of any number of them at a time.

Codes are made from the rows themselves, whose rotation is done twice and never stored: once for the largest number of
every group, once for the codes. Steps are those of `plain.step_sizes`. The rotation sums 16 products in an order of its
own, so that a number on the edge of two levels may have the other code than in `plain`. Its law is the same: steps are
not smaller than the numbers ask for, and what is decoded has the dither that it was coded with. All else is done in the
order of `plain`, nothing contracted. Rows are decoded as a whole, in the dtype of the product.

`TRITON_INTERPRET=1`, set before the first use, runs the kernels on the CPU, for tests.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# arguments of a jitted kernel are pointers and numbers of the device, which have no types here
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from wtacrs.estimators.core.dither import Dither
from wtacrs.estimators.kernels import plain
from wtacrs.estimators.kernels.grid import BLOCK, GROUP, Grid, Rotation
from wtacrs.estimators.kernels.triton_norms import INTERPRETED, row_norms

_SHAPES = [triton.Config({"ROWS": rows}, num_warps=warps) for rows, warps in ((16, 2), (32, 4), (64, 4), (128, 8))]
# tuning needs a device; the interpreter takes one shape
_tuned = triton.autotune(configs=_SHAPES[1:2] if INTERPRETED else _SHAPES, key=["columns"])


@triton.jit
def _rotated(x, index, mean, live, whole, last, row, rows, group, columns, LAST: tl.constexpr, ROWS: tl.constexpr):
    """Rows less their mean, rotated: `[ROWS, 64]` numbers of a group."""
    column = group * 64 + tl.arange(0, 64)
    inside = column < columns
    source = tl.load(index + row, mask=row < rows, other=0).to(tl.int64)
    there = (row < rows) & (tl.load(live + source) != 0)
    numbers = tl.load(
        x + source[:, None] * columns + column[None, :], mask=there[:, None] & inside[None, :], other=0.0
    ).to(tl.float32)
    numbers -= tl.load(mean + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    numbers = tl.reshape(tl.where(there[:, None] & inside[None, :], numbers, 0.0), (ROWS * 4, 16))
    entry = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
    found = tl.reshape(tl.dot(numbers, tl.load(whole + entry), input_precision="ieee"), (ROWS, 64))
    if LAST:
        other = tl.reshape(tl.dot(numbers, tl.load(last + entry), input_precision="ieee"), (ROWS, 64))
        found = tl.where((column // 16 == columns // 16)[None, :], other, found)
    return found


@triton.jit
def _wrapped(sums):
    """Fractional parts of numbers in [0, 2)."""
    return tl.where(sums >= 1, sums - 1, sums)


@_tuned
@triton.jit
def _peaks(
    x, index, mean, live, whole, last, peaks, rows, columns, groups, LAST: tl.constexpr, ROWS: tl.constexpr
):
    row, group = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1)
    numbers = _rotated(x, index, mean, live, whole, last, row, rows, group, columns, LAST, ROWS)
    tl.store(peaks + row.to(tl.int64) * groups + group, tl.max(tl.abs(numbers), axis=1), mask=row < rows)


@_tuned
@triton.jit
def _codes(
    x, index, mean, live, whole, last, factors, dither_rows, dither_columns, codes, rows, columns, groups,
    LAST: tl.constexpr, BITS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row, group = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1)
    numbers = _rotated(x, index, mean, live, whole, last, row, rows, group, columns, LAST, ROWS)
    long = row.to(tl.int64)
    numbers *= tl.load(factors + long * groups + group, mask=row < rows, other=0.0)[:, None]
    of_rows = tl.load(dither_rows + row, mask=row < rows, other=0.0)
    of_columns = tl.load(dither_columns + group * 64 + tl.arange(0, 64))
    top: tl.constexpr = 2**BITS - 1
    numbers = numbers + _wrapped(of_rows[:, None] + of_columns[None, :]) + 0.5 * top
    levels = tl.minimum(tl.maximum(numbers, 0.0), 1.0 * top).to(tl.int32)
    per_byte: tl.constexpr = 8 // BITS
    width: tl.constexpr = 8 * BITS
    planes = tl.reshape(levels, (ROWS, per_byte, width))
    packed = tl.sum(planes << (BITS * tl.arange(0, per_byte))[None, :, None], axis=1)
    place = (long * groups + group)[:, None] * width + tl.arange(0, width)[None, :]
    tl.store(codes + place, packed.to(tl.uint8), mask=(row < rows)[:, None])


@_tuned
@triton.jit
def _decoded(
    codes, shares, dither_rows, dither_columns, steps, rounding_rows, rounding_columns, out, factor, rows, columns,
    groups, BITS: tl.constexpr, TO_INT8: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row, group = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1)
    there, long, column = row < rows, row.to(tl.int64), group * 64 + tl.arange(0, 64)
    per_byte: tl.constexpr = 8 // BITS
    width: tl.constexpr = 8 * BITS
    top: tl.constexpr = 2**BITS - 1
    place = (long * groups + group)[:, None] * width + tl.arange(0, width)[None, :]
    packed = tl.load(codes + place, mask=there[:, None], other=0).to(tl.int32)
    levels = (packed[:, None, :] >> (BITS * tl.arange(0, per_byte))[None, :, None]) & top
    of_rows, of_columns = tl.load(dither_rows + row, mask=there, other=0.0), tl.load(dither_columns + column)
    numbers = tl.reshape(levels, (ROWS, 64)).to(tl.float32) - _wrapped(of_rows[:, None] + of_columns[None, :])
    share = tl.load(shares + long * groups + group, mask=there, other=0).to(tl.float32) * (1.0 / 255)
    numbers = (numbers + (0.5 - 0.5 * top)) * share[:, None]
    if TO_INT8:
        of_rows, of_columns = (
            tl.load(rounding_rows + row, mask=there, other=0.0),
            tl.load(rounding_columns + column),
        )
        numbers = tl.floor(numbers * factor + _wrapped(of_rows[:, None] + of_columns[None, :]))
        numbers = tl.minimum(tl.maximum(numbers, -127.0), 127.0)
    else:
        numbers *= tl.load(steps + row, mask=there, other=0.0).to(tl.float32)[:, None]
    target = out + long[:, None] * columns + column[None, :]
    tl.store(target, numbers.to(out.dtype.element_ty), mask=there[:, None])


@_tuned
@triton.jit
def _column_peaks(dy, units, out, rows, columns, ROWS: tl.constexpr):
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * 64 + tl.arange(0, 64)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    numbers = tl.load(dy + row.to(tl.int64)[:, None] * columns + column[None, :], mask=inside, other=0.0).to(
        tl.float32
    )
    numbers = tl.abs(numbers * tl.load(units + row, mask=row < rows, other=0.0)[:, None])
    tl.atomic_max(out + column, tl.max(numbers, axis=0), mask=column < columns)


@_tuned
@triton.jit
def _scaled(dy, units, per_column, rounding_rows, rounding_columns, out, rows, columns, ROWS: tl.constexpr):
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * 64 + tl.arange(0, 64)
    there, inside = row < rows, column < columns
    both = there[:, None] & inside[None, :]
    place = row.to(tl.int64)[:, None] * columns + column[None, :]
    numbers = tl.load(dy + place, mask=both, other=0.0).to(tl.float32)
    numbers = numbers * tl.load(units + row, mask=there, other=0.0)[:, None]
    numbers = numbers * tl.load(per_column + column, mask=inside, other=0.0)[None, :]
    of_rows = tl.load(rounding_rows + row, mask=there, other=0.0)
    of_columns = tl.load(rounding_columns + column, mask=inside, other=0.0)
    numbers = tl.floor(numbers + _wrapped(of_rows[:, None] + of_columns[None, :]))
    tl.store(out + place, tl.minimum(tl.maximum(numbers, -127.0), 127.0).to(tl.int8), mask=both)


def encode_rows(
    x: Float[Tensor, "n d"],
    mean: Float[Tensor, " d"],
    live: Bool[Tensor, " n"],
    rows: Int[Tensor, " k"] | None,
    weights: Float[Tensor, " k"] | None,
    dither: Dither,
    rotation: Rotation,
    grid: Grid,
    bits: int,
    out: plain.Codes,
) -> None:
    """Rows less their mean, rotated and coded into `out`.

    Args:
        x: input rows.
        mean: of them.
        live: rows that are not zeros.
        rows: indices of k of them; None for all.
        weights: by which the coded rows are multiplied; None for none.
        dither: of k rows.
        rotation: of the columns.
        grid: groups of 64 columns.
        bits: of a code.
        out: room for k rows.
    """
    k, columns = out.steps.shape[0], grid.columns
    index = torch.arange(k, device=x.device) if rows is None else rows
    last = rotation.whole if rotation.last is None else rotation.last
    given = (x.contiguous(), index, mean, live.view(torch.uint8), rotation.whole, last)
    peaks = torch.empty((k, grid.groups), dtype=torch.float32, device=x.device)
    partial = columns % BLOCK > 0
    _launch(_peaks, (k, grid.groups), *given, peaks, k, columns, grid.groups, LAST=partial)
    shares, steps, sizes = plain.step_sizes(peaks, weights, bits)
    out.shares.copy_(shares)
    out.steps.copy_(steps)
    factors = torch.where(sizes > 0, 1.0 / sizes, 0.0)
    _launch(
        _codes,
        (k, grid.groups),
        *given,
        factors,
        *dither,
        out.codes,
        k,
        columns,
        grid.groups,
        LAST=partial,
        BITS=bits,
    )


def decode_rows(
    codes: plain.Codes, dither: Dither, grid: Grid, bits: int, out: Float[Tensor, "k p"]
) -> Float[Tensor, "k p"]:
    """Rows as they are read again, in the dtype of `out`: unpacked, the dither taken off, times their steps."""
    unused = codes.steps
    given = (codes.codes, codes.shares, *dither, codes.steps, unused, unused)
    _decode(given, 1.0, grid, bits, out, to_int8=False)
    return out


def decode_to_int8(
    codes: plain.Codes,
    dither: Dither,
    rounding: Dither,
    grid: Grid,
    bits: int,
    factor: float,
    out: Int8[Tensor, "k p"],
    _: Any,
) -> None:
    """As `plain.decode_to_int8`, without scratch."""
    _decode((codes.codes, codes.shares, *dither, codes.steps, *rounding), factor, grid, bits, out, to_int8=True)


def _decode(
    given: tuple[Tensor, ...], factor: float, grid: Grid, bits: int, out: Tensor, *, to_int8: bool
) -> None:
    k = out.shape[0]
    size = (k, grid.groups)
    _launch(_decoded, size, *given, out, factor, k, grid.padded, grid.groups, BITS=bits, TO_INT8=to_int8)


def raise_peaks(
    dy: Float[Tensor, "k m"], units: Float[Tensor, " k"], largest: Float[Tensor, " m"], _: Any
) -> None:
    """As `plain.raise_peaks`, without scratch."""
    k, m = dy.shape
    _launch(_column_peaks, (k, -(-m // GROUP)), dy.contiguous(), units, largest, k, m)


def scale_to_int8(
    dy: Float[Tensor, "k m"],
    units: Float[Tensor, " k"],
    per_column: Float[Tensor, " m"],
    rounding: Dither,
    out: Int8[Tensor, "k m"],
    _: Any,
) -> None:
    """As `plain.scale_to_int8`, without scratch."""
    k, m = dy.shape
    _launch(_scaled, (k, -(-m // GROUP)), dy.contiguous(), units, per_column, *rounding, out, k, m)


def _launch(kernel: Any, size: tuple[int, int], *arguments: Any, **constants: Any) -> None:
    rows, groups = size
    if not INTERPRETED:
        constants["enable_fp_fusion"] = False
    if rows and groups:
        kernel[lambda meta: (triton.cdiv(rows, meta["ROWS"]), groups)](*arguments, **constants)


KERNELS = plain.Kernels(
    plain.encode,
    plain.decode,
    decode_to_int8,
    raise_peaks,
    scale_to_int8,
    blocks="whole",
    encode_rows=encode_rows,
    decode_rows=decode_rows,
    row_norms=row_norms,
)
