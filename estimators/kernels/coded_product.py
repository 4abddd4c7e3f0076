"""The product of coded rows with dY: decoded a block of rows at a time, in floating point or in int8."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from wtacrs.estimators.core.dither import Dither
from wtacrs.estimators.kernels import plain
from wtacrs.estimators.kernels.grid import Grid, Rotation, rotate
from wtacrs.estimators.kernels.int8_product import HEAVY, LARGEST, int8_product

_RESULT_ROWS = 256  # of a product that is finished while it is in the cache


class CodedRows(NamedTuple):
    """k rows in few bits, and the dither that they were rounded with.

    Attributes:
        codes: codes and steps.
        dither: the numbers of the rows and columns.
        slots: of the rows: the addresses of their random numbers.
        grid: of the columns.
        bits: of a code.
        kernels: that decode them.
    """

    codes: plain.Codes
    dither: Dither
    slots: Int[Tensor, " k"]
    grid: Grid
    bits: int
    kernels: plain.Kernels = plain.KERNELS

    @property
    def size(self) -> int:
        """k."""
        return self.codes.codes.shape[0]

    def block(self, rows: slice) -> tuple[plain.Codes, Dither]:
        """Some of the rows, next to each other."""
        codes = plain.Codes(*(part[rows] for part in self.codes))
        return codes, self.dither.of(rows)

    def take(self, rows: Int[Tensor, " s"]) -> CodedRows:
        """Some of the rows."""
        codes = plain.Codes(*(part.index_select(0, rows) for part in self.codes))
        return self._replace(codes=codes, dither=self.dither.of(rows), slots=self.slots.index_select(0, rows))


def row_blocks(rows: int, blocks: str = "any") -> Iterator[slice]:
    """Blocks of rows that stay in the cache while they are worked on.

    Args:
        rows: their number.
        blocks: as in `plain.Kernels`.
    """
    size = block_rows(rows, blocks)
    for start in range(0, rows, size or 1):
        stop = min(start + size, rows)
        yield slice(start if blocks == "any" else stop - size, stop)


def block_rows(rows: int, blocks: str = "any") -> int:
    """Rows of a block: all of them also in a graph that is compiled, which would grow with the blocks."""
    if blocks == "whole" or torch.compiler.is_compiling():
        return rows
    size = plain.BLOCK_ROWS
    return min(2 * size if blocks == "full" and rows >= 2 * size else size, rows)


class Known(NamedTuple):
    """Pairs that are multiplied as they are, as is the mean: `Σ_i y_i x_iᵀ` of few rows, columns as in the input.

    Attributes:
        dy: rows of dY.
        rows: that belong to them, zeros behind their columns.
    """

    dy: Float[Tensor, "h m"]
    rows: Float[Tensor, "h p"]

    def with_others(self, others: Known) -> Known:
        """These pairs and others."""
        return Known(*(torch.cat(pair) for pair in zip(self, others, strict=True)))


def float_product(
    coded: CodedRows, dy: Float[Tensor, "k m"], dtype: torch.dtype, rotation: Rotation, known: Known
) -> Float[Tensor, "m p"]:
    """`dyᵀ X̂` in floating point, rotated back, plus pairs that are known; summed in fp32 or better.

    Args:
        coded: the rows X̂.
        dy: the rows of dY that belong to them.
        dtype: of the factors.
        rotation: that takes the rows back.
        known: pairs to be added.
    """
    working, grid = coded.dither.rows.dtype, coded.grid
    product: Tensor | None = None
    for block, rows in _decoded_blocks(coded, dtype):
        if product is not None and dtype == working:
            torch.addmm(product, dy[block].to(working).T, rows, out=product)
            continue
        part = (dy[block].to(dtype).T @ rows.to(dtype)).to(working)
        product = part if product is None else product.add_(part)
    if product is None:
        product = torch.zeros((dy.shape[1], grid.padded), dtype=working, device=dy.device)
    product = rotate(product, rotation, grid)
    return torch.addmm(product, known.dy.T, known.rows, out=product)


def _decoded_blocks(coded: CodedRows, dtype: torch.dtype) -> Iterator[tuple[slice, Float[Tensor, "b p"]]]:
    """Blocks of the rows X̂, rotated as they are coded."""
    kernels, working = coded.kernels, coded.dither.rows.dtype
    if kernels.decode_rows is not None:
        room = coded.dither.rows.new_empty((coded.size, coded.grid.padded), dtype=dtype)
        yield slice(0, coded.size), kernels.decode_rows(coded.codes, coded.dither, coded.grid, coded.bits, room)
        return
    buffers = _buffers(coded.size, coded.grid.padded, working, coded.dither.rows)
    steps = coded.codes.steps.to(working)
    for block in row_blocks(coded.size):
        rows, scratch = (buffer[: block.stop - block.start] for buffer in buffers)
        kernels.decode(*coded.block(block), coded.grid, coded.bits, rows, scratch)
        yield block, rows.mul_(steps[block].unsqueeze(1))


class Int8Scales(NamedTuple):
    """How pairs are scaled to int8.

    Attributes:
        heavy: slots of the pairs that are multiplied as they are.
        units: factor of every row of dY, 0 for those: the row's largest step in units of int8.
        columns: c_a, what 1 stands for in column a of `units · dY`; positive.
    """

    heavy: Int[Tensor, " h"]
    units: Float[Tensor, " k"]
    columns: Float[Tensor, " m"]


def row_factor(bits: int) -> float:
    """c: numbers in units of a step reach from −2^(bits−1) to 2^(bits−1); times c they fill int8."""
    return LARGEST / 2.0 ** (bits - 1)


def int8_scales(
    steps: Shaped[Tensor, " k"], dy: Float[Tensor, "k m"], bits: int, kernels: plain.Kernels = plain.KERNELS
) -> Int8Scales:
    """Scales for the rows of dY; the heaviest pairs by the row's largest step times ‖y‖ are set apart."""
    working = torch.float64 if dy.dtype == torch.float64 else torch.float32
    units = steps.to(working) / row_factor(bits)
    sizes = torch.linalg.vector_norm(dy, dim=1, dtype=working) * units
    heavy = sizes.topk(HEAVY if steps.shape[0] > 2 * HEAVY else 0).indices
    units = units.index_fill(0, heavy, 0.0)
    largest = torch.zeros(dy.shape[1], dtype=working, device=dy.device)
    scratch, _ = _buffers(steps.shape[0], dy.shape[1], working, dy, kernels.blocks)
    for block in row_blocks(steps.shape[0], kernels.blocks):
        kernels.raise_peaks(dy[block], units[block], largest, scratch[: block.stop - block.start])
    return Int8Scales(heavy, units, torch.where(largest > 0, largest / LARGEST, 1.0))


def mixed_product(
    coded: CodedRows, dy: Float[Tensor, "k m"], of_rows: Dither, of_dy: Dither, rotation: Rotation, known: Known
) -> Float[Tensor, "m p"]:
    """`dyᵀ X̂` in int8 without bias, the heaviest pairs as they are, rotated back, plus pairs that are known.

    Args:
        coded: the rows X̂.
        dy: the rows of dY that belong to them.
        of_rows: dither for the rows.
        of_dy: dither for dY, independent of it.
        rotation: that takes the rows back.
        known: pairs to be added.
    """
    kernels, scales = coded.kernels, int8_scales(coded.codes.steps, dy, coded.bits, coded.kernels)
    m, padded, device = dy.shape[1], coded.grid.padded, dy.device
    rows_int8 = torch.empty((coded.size, padded), dtype=torch.int8, device=device)
    dy_int8 = torch.empty((coded.size, m), dtype=torch.int8, device=device)
    buffers, buffers_dy = (
        _buffers(coded.size, columns, torch.float32, dy, kernels.blocks) for columns in (padded, m)
    )
    per_column, factor = 1.0 / scales.columns, row_factor(coded.bits)
    for block in row_blocks(coded.size, kernels.blocks):
        own, own_dy = (
            (a[: block.stop - block.start], b[: block.stop - block.start]) for a, b in (buffers, buffers_dy)
        )
        kernels.decode_to_int8(
            *coded.block(block), of_rows.of(block), coded.grid, coded.bits, factor, rows_int8[block], own
        )
        kernels.scale_to_int8(dy[block], scales.units[block], per_column, of_dy.of(block), dy_int8[block], own_dy)
    known = known.with_others(_heavy_pairs(coded, dy, scales.heavy, rotation))
    return _taken_back(int8_product(dy_int8, rows_int8), scales.columns, rotation, coded.grid, known)


def _heavy_pairs(
    coded: CodedRows, dy: Float[Tensor, "k m"], heavy: Int[Tensor, " h"], rotation: Rotation
) -> Known:
    working = coded.dither.rows.dtype
    rows = [rotate(rows, rotation, coded.grid) for _, rows in _decoded_blocks(coded.take(heavy), working)]
    empty = coded.dither.rows.new_empty((0, coded.grid.padded))
    return Known(dy.index_select(0, heavy).to(working), torch.cat([empty, *rows]))


def _taken_back(
    sums: Shaped[Tensor, "m p"], scales: Float[Tensor, " m"], rotation: Rotation, grid: Grid, known: Known
) -> Float[Tensor, "m p"]:
    """`scales · sums`, rotated back, plus the known pairs: a block at a time on the CPU, where passes cost."""
    out = torch.empty(sums.shape, dtype=torch.float32, device=sums.device)
    m = sums.shape[0]
    size = m if sums.device.type != "cpu" or torch.compiler.is_compiling() else min(_RESULT_ROWS, m)
    scratch = torch.empty((size, sums.shape[1]), dtype=torch.float32, device=sums.device)
    for start in range(0, m, size or 1):
        block = slice(start, min(start + size, m))
        scaled = scratch[: block.stop - start].copy_(sums[block]).mul_(scales[block].unsqueeze(1))
        own = rotate(scaled, rotation, grid, out=out[block])
        torch.addmm(own, known.dy[:, block].T, known.rows, out=own)
    return out


def _buffers(
    rows: int, columns: int, dtype: torch.dtype, like: Tensor, blocks: str = "any"
) -> tuple[Tensor, Tensor]:
    """Scratch for a block, none where all rows are one."""
    shape = (0 if blocks == "whole" else block_rows(rows, blocks), columns)
    return torch.empty(shape, dtype=dtype, device=like.device), torch.empty(shape, dtype=dtype, device=like.device)
