"""Coding of rows by kernels that inductor compiles, one by one: the bits of `plain`, in fewer passes over memory.

Every kernel reads its block once and writes its result once. Blocks have `plain.BLOCK_ROWS` rows or twice as many, each
shape is compiled by itself. A smaller block is coded by `plain`, as is one without values or within a graph that is
compiled already. Matrix products, the rotation among them, are not compiled.

Equal bits: sums and products are those of `plain`, in the same order; multiplications and additions are not contracted,
and what is rounded to bf16 is read again as bf16 (`_OPTIONS`). All other operations are exact: comparisons, integers,
the dither on its grid (see `wtacrs.estimators.core.dither`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import count
from types import FunctionType
from typing import Any

import torch
from jaxtyping import Float, Int8, Shaped, UInt8
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from wtacrs.estimators.core.dither import Dither
from wtacrs.estimators.kernels import plain
from wtacrs.estimators.kernels.grid import Grid, group_peaks

_OPTIONS: dict[str, Any] = {"emulate_precision_casts": True, "cpp.enable_floating_point_contract_flag": "off"}
_numbers = count()


def encode(
    rotated: Float[Tensor, "b p"],
    weights: Float[Tensor, " b"] | None,
    dither: Dither,
    grid: Grid,
    bits: int,
    out: plain.Codes,
    scratch: Float[Tensor, "b p"],
) -> None:
    """As `plain.encode`."""
    if not _compiles(rotated):
        return plain.encode(rotated, weights, dither, grid, bits, out, scratch)
    factors = rotated.new_empty((rotated.shape[0], grid.groups))
    _run(_measure, rotated, weights, grid, bits, out.shares, out.steps, factors)
    return _run(_code, rotated, factors, *dither, grid, bits, out.codes)


def decode(
    codes: plain.Codes,
    dither: Dither,
    grid: Grid,
    bits: int,
    out: Float[Tensor, "b p"],
    scratch: Float[Tensor, "b p"],
) -> None:
    """As `plain.decode`."""
    if not _compiles(out):
        return plain.decode(codes, dither, grid, bits, out, scratch)
    return _run(_decode, codes.codes, codes.shares, *dither, grid, bits, out)


def decode_to_int8(
    codes: plain.Codes,
    dither: Dither,
    rounding: Dither,
    grid: Grid,
    bits: int,
    factor: float,
    out: Int8[Tensor, "b p"],
    scratch: tuple[Float[Tensor, "b p"], Float[Tensor, "b p"]],
) -> None:
    """As `plain.decode_to_int8`."""
    if not _compiles(out):
        return plain.decode_to_int8(codes, dither, rounding, grid, bits, factor, out, scratch)
    return _run(_decode_to_int8, codes.codes, codes.shares, *dither, *rounding, grid, bits, factor, out)


def raise_peaks(
    dy: Float[Tensor, "b m"],
    units: Float[Tensor, " b"],
    largest: Float[Tensor, " m"],
    scratch: Float[Tensor, "b m"],
) -> None:
    """As `plain.raise_peaks`."""
    if not _compiles(dy) or dy.shape[0] % _LANES:
        return plain.raise_peaks(dy, units, largest, scratch)
    peaks = scratch[: dy.shape[0] // _LANES]
    _run(_column_peaks, dy, units, peaks)
    torch.maximum(largest, peaks.amax(0), out=largest)
    return None


def scale_to_int8(
    dy: Float[Tensor, "b m"],
    units: Float[Tensor, " b"],
    per_column: Float[Tensor, " m"],
    rounding: Dither,
    out: Int8[Tensor, "b m"],
    scratch: tuple[Float[Tensor, "b m"], Float[Tensor, "b m"]],
) -> None:
    """As `plain.scale_to_int8`."""
    if not _compiles(out):
        return plain.scale_to_int8(dy, units, per_column, rounding, out, scratch)
    return _run(_scale_to_int8, dy, units, per_column, *rounding, out)


KERNELS = plain.Kernels(encode, decode, decode_to_int8, raise_peaks, scale_to_int8, blocks="full")

_LANES = 16  # rows whose largest numbers are found together: a sum down long columns is not vectorised


def _compiles(block: Shaped[Tensor, "b c"]) -> bool:
    """Whether a block is full, has values, and is not part of a graph already."""
    full = block.shape[0] in (plain.BLOCK_ROWS, 2 * plain.BLOCK_ROWS) and block.shape[1] > 0
    return full and not (torch.compiler.is_compiling() or is_fake(block))


def _run(kernel: Callable[..., None], *arguments: Any) -> None:
    shapes = ((a.shape, a.dtype) if isinstance(a, Tensor) else a for a in arguments)
    _specialised(kernel, tuple(shapes))(*arguments)


@cache
def _specialised(kernel: FunctionType, _: tuple[Any, ...]) -> Callable[..., None]:
    """The kernel compiled for arguments of these shapes alone.

    Each has a code object of its own: dynamo counts compilations by code, and gives up after a few of them.
    """
    code = kernel.__code__.replace(co_name=f"{kernel.__name__}_{next(_numbers)}")
    own = FunctionType(code, kernel.__globals__, code.co_name, kernel.__defaults__)
    return torch.compile(own, fullgraph=True, dynamic=False, options=_OPTIONS)


def _measure(
    rotated: Float[Tensor, "b p"],
    weights: Float[Tensor, " b"] | None,
    grid: Grid,
    bits: int,
    shares: UInt8[Tensor, "b groups"],
    steps: Float[Tensor, " b"],
    factors: Float[Tensor, "b groups"],
) -> None:
    """Shares, steps, and the factors that bring numbers to units of their step."""
    of_groups, of_rows, sizes = plain.step_sizes(group_peaks(rotated, grid), weights, bits)
    shares.copy_(of_groups)
    steps.copy_(of_rows)
    factors.copy_(torch.where(sizes > 0, 1.0 / sizes, 0.0))


def _code(
    rotated: Float[Tensor, "b p"],
    factors: Float[Tensor, "b groups"],
    rows: Float[Tensor, " b"],
    columns: Float[Tensor, " p"],
    grid: Grid,
    bits: int,
    out: UInt8[Tensor, "b bytes"],
) -> None:
    per_byte, width, top = 8 // bits, grid.size * bits // 8, plain.top_of(bits)
    planes = rotated.view(-1, grid.groups, per_byte, width) * factors[:, :, None, None]
    planes = planes + _wrapped(rows[:, None, None, None] + columns.view(grid.groups, per_byte, width))
    levels = (planes + top / 2).clamp(0, top).to(torch.int32)
    packed = levels[:, :, 0]
    for plane in range(1, per_byte):
        packed = packed | (levels[:, :, plane] << (bits * plane))
    out.copy_(packed.to(torch.uint8).view(out.shape))


def _decode(
    codes: UInt8[Tensor, "b bytes"],
    shares: UInt8[Tensor, "b groups"],
    rows: Float[Tensor, " b"],
    columns: Float[Tensor, " p"],
    grid: Grid,
    bits: int,
    out: Float[Tensor, "b p"],
) -> None:
    out.copy_(_numbers_of(codes, shares, rows, columns, grid, bits).view(out.shape))


def _decode_to_int8(
    codes: UInt8[Tensor, "b bytes"],
    shares: UInt8[Tensor, "b groups"],
    rows: Float[Tensor, " b"],
    columns: Float[Tensor, " p"],
    rounding_rows: Float[Tensor, " b"],
    rounding_columns: Float[Tensor, " p"],
    grid: Grid,
    bits: int,
    factor: float,
    out: Int8[Tensor, "b p"],
) -> None:
    numbers = _numbers_of(codes, shares, rows, columns, grid, bits) * factor
    dither = _wrapped(rounding_rows[:, None, None, None] + rounding_columns.view(numbers.shape[1:]))
    out.copy_((numbers + dither).floor().clamp(-127, 127).to(torch.int8).view(out.shape))


def _numbers_of(
    codes: UInt8[Tensor, "b bytes"],
    shares: UInt8[Tensor, "b groups"],
    rows: Float[Tensor, " b"],
    columns: Float[Tensor, " p"],
    grid: Grid,
    bits: int,
) -> Float[Tensor, "b groups planes width"]:
    per_byte, width, top = 8 // bits, grid.size * bits // 8, plain.top_of(bits)
    places = torch.arange(0, 8, bits, dtype=torch.int32, device=codes.device).unsqueeze(1)
    levels = (codes.view(-1, grid.groups, 1, width).to(torch.int32) >> places) & top
    dither = _wrapped(rows[:, None, None, None] + columns.view(grid.groups, per_byte, width))
    numbers = levels.to(rows.dtype) - dither + (0.5 - top / 2)
    return numbers * (shares.to(rows.dtype) * (1.0 / plain.SHARES))[:, :, None, None]


def _column_peaks(dy: Float[Tensor, "b m"], units: Float[Tensor, " b"], out: Float[Tensor, "b16 m"]) -> None:
    scaled = (dy * units.unsqueeze(1)).abs()
    out.copy_(scaled.view(-1, _LANES, dy.shape[1]).amax(1))


def _scale_to_int8(
    dy: Float[Tensor, "b m"],
    units: Float[Tensor, " b"],
    per_column: Float[Tensor, " m"],
    rows: Float[Tensor, " b"],
    columns: Float[Tensor, " m"],
    out: Int8[Tensor, "b m"],
) -> None:
    scaled = dy * units.unsqueeze(1) * per_column
    out.copy_((scaled + _wrapped(rows.unsqueeze(1) + columns)).floor().clamp(-127, 127).to(torch.int8))


def _wrapped(sums: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Fractional parts of numbers in [0, 2)."""
    return torch.where(sums >= 1, sums - 1, sums)
