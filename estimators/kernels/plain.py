"""Coding of rows in plain PyTorch, in place and a block of rows at a time, so that what is worked on stays in the cache.

A fresh result of 16 MB costs page faults, more than the arithmetic that fills it: buffers are made once per call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor

from wtacrs.estimators.core.dither import Dither
from wtacrs.estimators.core.packing import round_up
from wtacrs.estimators.kernels.grid import Grid

BLOCK_ROWS = 512
SHARES = 255
"""Levels of a group's step as a share of its row's."""


class Codes(NamedTuple):
    """Rows in few bits.

    Attributes:
        codes: in planes (see `grid`).
        shares: step of every group as a share of the row's, of 255.
        steps: largest step of every row, bf16, fp64 beside fp64 numbers; its weight is a factor.
    """

    codes: UInt8[Tensor, "k bytes"]
    shares: UInt8[Tensor, "k groups"]
    steps: Float[Tensor, " k"]


def top_of(bits: int) -> int:
    """L, the highest of 2^bits levels."""
    return int(2**bits - 1)


def step_dtype(like: Float[Tensor, ...]) -> torch.dtype:
    """Of the steps of numbers that are coded in this precision."""
    return torch.float64 if like.dtype == torch.float64 else torch.bfloat16


def step_sizes(
    peaks: Float[Tensor, "k groups"], weights: Float[Tensor, " k"] | None, bits: int
) -> tuple[UInt8[Tensor, "k groups"], Float[Tensor, " k"], Float[Tensor, "k groups"]]:
    """Shares, steps of the rows, and the steps of the groups without the weight, from the largest number of each.

    Both are rounded up, so that the levels reach as far as the numbers. A group of zeros has the share 0.
    """
    of_rows = peaks.amax(1) if peaks.shape[1] else peaks.sum(1)  # without columns there is nothing to compare
    largest = of_rows * (2.0 / top_of(bits))
    weighted = largest if weights is None else largest * weights
    steps = weighted if peaks.dtype == torch.float64 else round_up(weighted)
    own = steps.to(peaks.dtype)
    if weights is not None:
        own = own / torch.where(weights > 0, weights, 1.0)
    unit = own * (1.0 / SHARES)
    wanted = peaks * (2.0 / top_of(bits)) / torch.where(unit > 0, unit, 1.0).unsqueeze(1)
    shares = wanted.ceil_().clamp_(max=SHARES)
    return shares.to(torch.uint8), steps, shares * unit.unsqueeze(1)


def encode(
    rotated: Float[Tensor, "b p"],
    weights: Float[Tensor, " b"] | None,
    dither: Dither,
    grid: Grid,
    bits: int,
    out: Codes,
    scratch: Float[Tensor, "b p"],
) -> None:
    """Round and pack a block of rotated rows into `out`; `rotated` and `scratch` are overwritten.

    Number z of a group with step Δ has the code `⌊z/Δ + L/2 + u⌋`.
    """
    b, top = rotated.shape[0], top_of(bits)
    grouped = rotated.view(b, grid.groups, grid.size)
    peaks = torch.abs(grouped, out=scratch.view(grouped.shape)).amax(2)
    shares, steps, sizes = step_sizes(peaks, weights, bits)
    out.shares.copy_(shares)
    out.steps.copy_(steps)
    grouped.mul_(torch.where(sizes > 0, 1.0 / sizes, 0.0).unsqueeze(2))
    torch.add(dither.rows.unsqueeze(1), dither.columns, out=scratch).frac_()
    levels = rotated.add_(scratch).add_(top / 2).clamp_(0, top).to(torch.uint8)  # truncated: not below 0
    pack_planes(levels, grid, bits, out.codes)


def pack_planes(levels: UInt8[Tensor, "b p"], grid: Grid, bits: int, out: UInt8[Tensor, "b bytes"]) -> None:
    """Codes of `bits` bits side by side in planes; `levels` is overwritten."""
    per_byte, width = 8 // bits, grid.size * bits // 8
    planes = levels.view(levels.shape[0], grid.groups, per_byte, width)
    packed = out.view(levels.shape[0], grid.groups, width)
    packed.copy_(planes[:, :, 0])
    for plane in range(1, per_byte):
        packed.bitwise_or_(planes[:, :, plane].bitwise_left_shift_(bits * plane))


def decode(
    codes: Codes,
    dither: Dither,
    grid: Grid,
    bits: int,
    out: Float[Tensor, "b p"],
    scratch: Float[Tensor, "b p"],
) -> None:
    """Numbers in units of their row's step, `(q + ½ − u − L/2) · share`, into `out`; `scratch` is overwritten."""
    b, per_byte, width = codes.codes.shape[0], 8 // bits, grid.size * bits // 8
    planes = out.view(b, grid.groups, per_byte, width)
    packed = codes.codes.view(b, grid.groups, width)
    for plane in range(per_byte):
        levels = packed if plane == 0 else packed.bitwise_right_shift(bits * plane)
        if plane < per_byte - 1:
            levels = levels.bitwise_and(top_of(bits))
        planes[:, :, plane].copy_(levels)
    torch.add(dither.rows.unsqueeze(1), dither.columns, out=scratch).frac_()
    out.sub_(scratch).add_(0.5 - top_of(bits) / 2)
    shares = codes.shares.to(out.dtype).mul_(1.0 / SHARES)
    out.view(b, grid.groups, grid.size).mul_(shares.unsqueeze(2))


def decode_to_int8(
    codes: Codes,
    dither: Dither,
    rounding: Dither,
    grid: Grid,
    bits: int,
    factor: float,
    out: Int8[Tensor, "b p"],
    scratch: tuple[Float[Tensor, "b p"], Float[Tensor, "b p"]],
) -> None:
    """What `decode` gives times a factor, rounded to int8; `scratch` is overwritten."""
    numbers, other = scratch
    decode(codes, dither, grid, bits, numbers, other)
    round_to_int8(numbers.mul_(factor), rounding, out, other)


def raise_peaks(
    dy: Float[Tensor, "b m"],
    units: Float[Tensor, " b"],
    largest: Float[Tensor, " m"],
    scratch: Float[Tensor, "b m"],
) -> None:
    """`largest` of every column of `units · dy` and of what it was; `scratch` is overwritten."""
    torch.mul(dy, units.unsqueeze(1), out=scratch).abs_()
    torch.maximum(largest, scratch.amax(0), out=largest)


def scale_to_int8(
    dy: Float[Tensor, "b m"],
    units: Float[Tensor, " b"],
    per_column: Float[Tensor, " m"],
    rounding: Dither,
    out: Int8[Tensor, "b m"],
    scratch: tuple[Float[Tensor, "b m"], Float[Tensor, "b m"]],
) -> None:
    """`units · dy · per_column`, rounded to int8; `scratch` is overwritten."""
    numbers, other = scratch
    torch.mul(dy, units.unsqueeze(1), out=numbers).mul_(per_column)
    round_to_int8(numbers, rounding, out, other)


def round_to_int8(
    numbers: Float[Tensor, "b c"], dither: Dither, out: Int8[Tensor, "b c"], scratch: Float[Tensor, "b c"]
) -> None:
    """Stochastic rounding of numbers in [−127, 127] to whole ones; `numbers` and `scratch` are overwritten."""
    torch.add(dither.rows.unsqueeze(1), dither.columns, out=scratch).frac_()
    # floor in place and one conversion: whole numbers from −127 to 127, and 127 + u does not reach 128
    out.copy_(numbers.add_(scratch).floor_().clamp_(-127, 127))


class Kernels(NamedTuple):
    """What is done to rows of one width.

    Attributes:
        encode: as `encode`.
        decode: as `decode`.
        decode_to_int8: as `decode_to_int8`.
        raise_peaks: as `raise_peaks`.
        scale_to_int8: as `scale_to_int8`.
        blocks: "any" has `BLOCK_ROWS` rows or less; "full" so many or twice as many where there are as many, the last two
            overlapping; "whole" all rows and no scratch.
        encode_rows: in place of `encode`, from the input rows; None if `encode` is used.
        decode_rows: in place of `decode`, times the steps of the rows; None if `decode` is used.
        row_norms: of rows less their mean and of rows, from rows, mean and which rows count; None for PyTorch's.
    """

    encode: Callable[..., None]
    decode: Callable[..., None]
    decode_to_int8: Callable[..., None]
    raise_peaks: Callable[..., None]
    scale_to_int8: Callable[..., None]
    blocks: str
    encode_rows: Callable[..., None] | None = None
    decode_rows: Callable[..., Tensor] | None = None
    row_norms: Callable[..., tuple[Tensor, Tensor]] | None = None


KERNELS = Kernels(encode, decode, decode_to_int8, raise_peaks, scale_to_int8, blocks="any")
