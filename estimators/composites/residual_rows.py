"""Rows less their mean: how they are scored, rotated and coded, and the variance of what is coded."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from wtacrs.estimators.core.dither import Dither
from wtacrs.estimators.core.products import working_dtype
from wtacrs.estimators.core.scores import gradient_proxies, has_values, row_norms
from wtacrs.estimators.kernels import plain
from wtacrs.estimators.kernels.coded_product import block_rows, int8_scales, row_blocks, row_factor
from wtacrs.estimators.kernels.grid import Grid, grid_of, group_peaks, rotate, rotation_of
from wtacrs.estimators.kernels.int8_product import fraction_variance, mean_fraction_variance


class Residuals(NamedTuple):
    """`x − mean`, zeros where a row is not live.

    Attributes:
        x: input rows; what is not live may hold anything.
        mean: as it is stored.
        live: rows of positive score.
    """

    x: Float[Tensor, "n d"]
    mean: Float[Tensor, " d"]
    live: Bool[Tensor, " n"]

    @property
    def grid(self) -> Grid:
        """Of the columns."""
        return grid_of(self.x.shape[1])

    @property
    def like(self) -> Float[Tensor, " 0"]:
        """Dtype and device to code in."""
        return self.x.new_empty(0, dtype=working_dtype(self.x.dtype))

    def write(self, rows: slice | Int[Tensor, " b"], out: Float[Tensor, "b p"]) -> None:
        """Some of the rows, zeros behind their columns."""
        d = self.x.shape[1]
        x, live = (t[rows] if isinstance(rows, slice) else t.index_select(0, rows) for t in (self.x, self.live))
        if d == out.shape[1]:
            torch.sub(x, self.mean.to(out.dtype), out=out)
        else:  # a compiler takes no view as `out`
            out[:, :d].copy_(x).sub_(self.mean.to(out.dtype))
            out[:, d:] = 0.0
        if not (has_values(live) and bool(live.all())):
            out.masked_fill_(~live.unsqueeze(1), 0.0)

    def all(self, rows: Int[Tensor, " k"] | None) -> Float[Tensor, "k d"]:
        """Rows by their indices, all if None."""
        return self._whole(rows)[:, : self.x.shape[1]]

    def rotated(self, rows: Int[Tensor, " k"] | None) -> Float[Tensor, "k p"]:
        """The same, rotated, zeros behind their columns."""
        whole = self._whole(rows)
        return rotate(whole, rotation_of(self.grid.columns, whole), self.grid)

    def _whole(self, rows: Int[Tensor, " k"] | None) -> Float[Tensor, "k p"]:
        chosen = slice(0, self.x.shape[0]) if rows is None else rows
        count = self.x.shape[0] if rows is None else rows.shape[0]
        out = self.like.new_empty((count, self.grid.padded))
        self.write(chosen, out)
        return out


def mean_of(x: Float[Tensor, "n d"], live: Bool[Tensor, " n"]) -> Float[Tensor, " d"]:
    """The mean of the live rows, in the dtype of x."""
    working = working_dtype(x.dtype)
    share = live.to(working) / live.sum().clamp(min=1)
    if not (has_values(live) and bool(live.all())):
        x = torch.where(live.unsqueeze(1), x, 0.0)
    return (share @ x.to(working)).to(x.dtype)


def residual_scores(
    residuals: Residuals, scores: Float64[Tensor, " n"], kernels: plain.Kernels = plain.KERNELS
) -> Float64[Tensor, " n"]:
    """`‖R_i‖ · score_i / ‖x_i‖`; a live row of zeros counts with the mean of the other factors."""
    of_residuals, of_rows = _norms(residuals) if kernels.row_norms is None else kernels.row_norms(*residuals)
    return of_residuals * gradient_proxies(of_rows, scores)


def _norms(residuals: Residuals) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """Of the residuals and of the rows, 0 where a row is not live."""
    x, live = residuals.x, residuals.live
    buffer = residuals.like.new_empty((block_rows(x.shape[0]), residuals.grid.padded))
    empty = x.new_zeros(0, dtype=torch.float64)
    of_residuals, of_rows = [empty], [empty]
    for block in row_blocks(x.shape[0]):
        rows = buffer[: block.stop - block.start]
        residuals.write(block, rows)
        of_residuals.append(row_norms(rows))
        whole = has_values(live) and bool(live[block].all())
        of_rows.append(row_norms(x[block] if whole else torch.where(live[block].unsqueeze(1), x[block], 0.0)))
    return torch.cat(of_residuals), torch.cat(of_rows)


def encode_rows(
    residuals: Residuals,
    rows: Int[Tensor, " k"] | None,
    weights: Float[Tensor, " k"] | None,
    dither: Dither,
    bits: int,
    out: plain.Codes,
    kernels: plain.Kernels = plain.KERNELS,
) -> None:
    """Rotate and code rows into `out`.

    Args:
        residuals: the rows.
        rows: indices of k of them; None for all.
        weights: by which the coded rows are multiplied; None for none.
        dither: of k rows.
        bits: of a code.
        out: room for k rows.
        kernels: that code them.
    """
    grid, like, count = residuals.grid, residuals.like, out.steps.shape[0]
    rotation = rotation_of(grid.columns, like)
    if kernels.encode_rows is not None:
        kernels.encode_rows(*residuals, rows, weights, dither, rotation, grid, bits, out)
        return
    centred, rotated = (like.new_empty((block_rows(count, kernels.blocks), grid.padded)) for _ in range(2))
    for block in row_blocks(count, kernels.blocks):
        size = block.stop - block.start
        residuals.write(block if rows is None else rows[block], centred[:size])
        rotate(centred[:size], rotation, grid, out=rotated[:size])
        kernels.encode(
            rotated[:size],
            None if weights is None else weights[block],
            dither.of(block),
            grid,
            bits,
            plain.Codes(out.codes[block], out.shares[block], out.steps[block]),
            centred[:size],
        )


def places_of(
    residuals: Residuals, rows: Int[Tensor, " k"] | None, weights: Float[Tensor, " k"] | None, bits: int
) -> Float[Tensor, "k d"]:
    """Where the numbers lie among the levels 0 … L: for enumeration."""
    rotated, grid = residuals.rotated(rows), residuals.grid
    sizes = _spread(_group_steps(rotated, weights, grid, bits), grid)
    return rotated[:, : grid.columns] / torch.where(sizes > 0, sizes, 1.0) + plain.top_of(bits) / 2


def rounding_variances(residuals: Residuals, rows: Int[Tensor, " k"] | None, bits: int) -> Float64[Tensor, " k"]:
    """`V_i = Σ_j Δ_ij²/12` of rows without their weight."""
    grid = residuals.grid
    steps = _group_steps(residuals.rotated(rows), None, grid, bits).double()
    return _spread(steps, grid).square().sum(1) / 12


def int8_variance(
    residuals: Residuals, rows: Int[Tensor, " k"] | None, dy: Float[Tensor, "k m"], bits: int
) -> Float64[Tensor, ""]:
    """What rounding to int8 adds to the product of rows of one width: `Σ_i [‖y_i‖² A_i + (‖R_i‖² + V_i + A_i) B_i]`."""
    grid, rotated = residuals.grid, residuals.rotated(rows)
    shares, steps, sizes = plain.step_sizes(group_peaks(rotated, grid), None, bits)
    scales = int8_scales(steps, dy, bits)
    # in units of int8 the largest step of a row is c, a group's a share of it
    width = _spread(shares.double() * (row_factor(bits) / plain.SHARES), grid)
    spread = _spread(sizes.double(), grid)
    there = spread > 0
    rotated = rotated[:, : grid.columns].double()
    place = rotated / torch.where(there, spread, 1.0) * width
    unit = (steps.double() / row_factor(bits)).square()
    rounding = torch.where(there, mean_fraction_variance(place, torch.where(there, width, 1.0)), 0.0)
    of_rows = rounding.sum(1) * unit
    places = dy.double() * (scales.units.double().unsqueeze(1) / scales.columns.double())
    of_dy = (fraction_variance(places) * scales.columns.double().square()).sum(1)
    of_dy = of_dy / torch.where(unit > 0, unit, 1.0)  # the unit of a row is a factor of dY
    square = rotated.square().sum(1) + spread.square().sum(1) / 12
    light = (scales.units > 0).double()
    return (light * (row_norms(dy).square() * of_rows + (square + of_rows) * of_dy)).sum()


def _group_steps(
    rotated: Float[Tensor, "k p"], weights: Float[Tensor, " k"] | None, grid: Grid, bits: int
) -> Float[Tensor, "k groups"]:
    """Steps of rows without their weight."""
    return plain.step_sizes(group_peaks(rotated, grid), weights, bits)[2]


def _spread(values: Float[Tensor, "n groups"], grid: Grid) -> Float[Tensor, "n d"]:
    """What belongs to groups, for every column."""
    return values.repeat_interleave(grid.size, dim=1)[:, : grid.columns]
