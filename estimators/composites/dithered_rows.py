"""`dithered_rows`: rows less their mean, rotated in small blocks, in few bits with one random number per row and column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, NoReturn

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64, Shaped, UInt8
from torch import Tensor

from wtacrs.estimators.composites.mixed_precision_rows import DESIGNS
from wtacrs.estimators.core.base import Traits
from wtacrs.estimators.core.checks import check_length, check_rows_agree
from wtacrs.estimators.core.counter_rng import Source
from wtacrs.estimators.core.dither import Dither, draw_dither
from wtacrs.estimators.core.errors import InputError, NoClosedForm
from wtacrs.estimators.core.packing import check_bits, pack_bits, unpack_bits
from wtacrs.estimators.core.products import double_product, product_dtype, working_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.row_design import RowPlan
from wtacrs.estimators.core.scores import has_values, row_norms, sampling_scores
from wtacrs.estimators.core.sizing import check_budget, rows_for
from wtacrs.estimators.core.sourced import RandomChoices, RegeneratingEstimator
from wtacrs.estimators.kernels import plain
from wtacrs.estimators.kernels.coded_product import (
    CodedRows,
    float_product,
    int8_scales,
    mixed_product,
    row_blocks,
    row_factor,
)
from wtacrs.estimators.kernels.grid import BLOCK, Grid, grid_of, rotate, rotation_of
from wtacrs.estimators.kernels.int8_product import (
    PRECISIONS,
    fraction_variance,
    mean_fraction_variance,
    uses_int8,
)
from wtacrs.estimators.rows.fixed_size import FixedSizeEstimator

# streams of a seed: pairs of rows and columns for the codes, for the rows in int8, and for dY in int8
_CODES, _ROWS_INT8, _DY_INT8 = (0, 1), (2, 3), (4, 5)


class SavedDitheredRows(NamedTuple):
    """Codes of k rows, their steps, which rows they are, and the mean."""

    codes: UInt8[Tensor, "k bytes"]
    shares: UInt8[Tensor, "k groups"]
    steps: Float[Tensor, " k"]
    kept: UInt8[Tensor, " b"]  # a bit per row; none if all rows are kept
    live: UInt8[Tensor, " l"]  # rows of positive score, a bit per row
    mean: Float[Tensor, " d"]
    seed: Int64[Tensor, " 1"]
    shape_carrier: Float[Tensor, "n 0"]  # no bytes: carries n and the dtype of x


@register("dithered_rows")
@dataclass(frozen=True, repr=False)
class DitheredRows(RegeneratingEstimator[SavedDitheredRows]):
    """`X = 1 μᵀ + R`: the mean as it is, k rows of R rotated and rounded: `Ĝ = (Σ y_i) μᵀ + Σ_kept y_i Q(R_i H/π_i)ᵀ Hᵀ`.

    μ is the mean of the rows of positive score, as it is stored; H is a fixed orthogonal matrix of signed Hadamard
    matrices of 16 features, which spreads what stands out (Suresh et al., "Distributed Mean Estimation with Limited
    Communication", ICML 2017, arXiv 1611.00429, where all features are rotated together). Q rounds to 2^bits levels by
    subtractive dithering (see `wtacrs.estimators.core.packing`), every group of 64 features with a step of its own that
    is stored as a share of the row's. Feature j of row i has the dither `u_ij = (r_i + s_j) mod 1` from n + d random
    numbers (see `wtacrs.estimators.core.dither`). Rows are drawn by `‖R_i‖ · score_i / ‖x_i‖`, the last factor the proxy
    of ‖y_i‖, and weighed by 1/π_i; with `budget=1.0` all are kept.

    Mean: steps and weights are functions of the draw of the rows, never of the dither. The error of number j of row i is
    `(½ − frac(p_ij + u_ij)) Δ_ij`, and `frac(p + u)` is uniform on [0, 1), so that `E Q(z) = z` given the draw, whatever
    s is. A row is kept with probability π_i: `EĜ = (Σ y_i) μᵀ + Σ_i π_i y_i (R_i H/π_i)ᵀ Hᵀ = dYᵀ 1 μᵀ + dYᵀ R = G`.

    Variance: a mean of μ alone has none, and H changes no norm. Errors have mean 0 and variance Δ²/12, and any two are
    uncorrelated, since two dithers are independent. With `V_i = Σ_j Δ_ij²/12` of the row without its weight

        Var Ĝ = Var_rows(R, dY) + Σ_i V_i ‖y_i‖² / π_i,

    the first term that of the design, 0 if all rows are kept (up to the rounding of steps, which depends on the weight).

    Precision of the product: "float" multiplies in the precision of the exact product. "int8" rounds the decoded rows and
    dY to int8 without bias, by dither of their own, but for the 64 heaviest pairs (see
    `wtacrs.estimators.kernels.int8_product`); with δ = c Δ the width of a step in int8's units, x̂ the decoded rows and
    c_a the scale of column a, these other pairs add, given the draw,

        Σ_i [‖y_i‖² A_i + (‖R_i‖² + V_i + A_i) B_i],   A_i = Σ_j E V(x̂_ij), B_i = Σ_a c_a² V(y_ia/c_a).

    "auto" is int8 where that is faster: see `uses_int8`.

    Bytes: per kept row d·bits/8, d/64 for shares and 2 for the step; n/8 for the rows of positive score, and n/8 for those
    kept unless all are; mean 2d in bf16, seed 8. d counts as the next multiple of 64 (below 49: of 16). MACs: `k·d·m`,
    and 16 per number for the rotation of the rows and of the result.

    Args:
        bits: 8, 4 or 2.
        budget: rows kept, as in `RowEstimator`; 1.0 keeps all.
        design: how rows are drawn, "systematic", "pivotal", "conditional_poisson" or "sampford".
        product: "auto", "float" or "int8".

    >>> import torch
    >>> from wtacrs.estimators import make, saved_bytes
    >>> x, dy = torch.randn(512, 128) + 1.0, torch.randn(512, 8)
    >>> four, eight = make("dithered_rows(bits=4)"), make("stochastic_rounding(bits=4)")
    >>> saved_bytes(four.compress(x)) / (x.numel() * 4), saved_bytes(eight.compress(x)) / (x.numel() * 4)
    (0.1360..., 0.128...)
    >>> bool(four.variance(x, dy) < 0.3 * eight.variance(x, dy))
    True
    """

    bits: int = 4
    budget: int | float = 1.0
    design: str = "systematic"
    product: str = "auto"

    traits: ClassVar[Traits] = Traits(
        family="composite", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=False
    )

    def __post_init__(self) -> None:
        check_bits(self.bits, None, self.name)
        check_budget(self.budget, self.name)
        if not isinstance(self.design, str) or self.design not in DESIGNS:
            raise InputError(f"{self.name}: design={self.design!r} must be one of {', '.join(DESIGNS)}")
        if not isinstance(self.product, str) or self.product not in PRECISIONS:
            raise InputError(f"{self.name}: product={self.product!r} must be one of {', '.join(PRECISIONS)}")

    def rows_design(self, n: int) -> FixedSizeEstimator:
        """The design that draws the rows."""
        return DESIGNS[self.design](budget=max(rows_for(self.budget, n), 1))

    def keep(
        self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"], source: RandomChoices
    ) -> SavedDitheredRows:
        """Take the mean off, draw the rows, rotate and code them."""
        x = x.detach()
        n = x.shape[0]
        live = scores > 0
        mean = _mean(x, live)
        rows, weights, kept = None, None, pack_bits(live[:0])
        if rows_for(self.budget, n) < n:
            plan = source.plan(self.rows_design(n), residual_scores(x, mean, scores))
            rows, weights, flags = _in_order(plan, n)
            weights, kept = weights.to(working_dtype(x.dtype)), pack_bits(flags)
        seed, numbers = source.seeded()
        codes = self._encode(_Residuals(x, mean, live, rows, weights), numbers)
        return SavedDitheredRows(
            *codes, kept=kept, live=pack_bits(live), mean=mean, seed=seed, shape_carrier=x.new_empty((n, 0))
        )

    def _encode(self, residuals: _Residuals, source: Source) -> plain.Codes:
        grid, count, like = residuals.grid, residuals.count, residuals.like
        rotation = rotation_of(grid.columns, like)
        dither = draw_dither(
            source,
            _CODES,
            count,
            grid.padded,
            like,
            lambda columns: _places(residuals, self.bits) + columns[: grid.columns],
        )
        out = plain.empty_codes(count, grid, self.bits, like)
        centred, rotated = (like.new_empty((min(plain.BLOCK_ROWS, count), grid.padded)) for _ in range(2))
        for block in row_blocks(count):
            size = block.stop - block.start
            residuals.write(block, centred[:size])
            rotate(centred[:size], rotation, grid, out=rotated[:size])
            plain.encode(
                rotated[:size],
                None if residuals.weights is None else residuals.weights[block],
                Dither(dither.rows[block], dither.columns),
                grid,
                self.bits,
                plain.Codes(out.codes[block], out.shares[block], out.steps[block]),
                centred[:size],
            )
        return out

    def finish(self, saved: SavedDitheredRows, dy: Float[Tensor, "n m"], source: Source) -> Float[Tensor, "m d"]:
        """Sum the pairs of the decoded rows, rotate back, and add the mean's part."""
        check_length(saved.shape_carrier, dy)
        n, d, dtype = dy.shape[0], saved.mean.shape[0], product_dtype(saved.mean, dy)
        working = working_dtype(dtype)
        coded = self._coded(saved, source)
        kept = dy
        if saved.codes.shape[0] < n:
            kept = dy.index_select(0, _rows_of(unpack_bits(saved.kept, n), saved.codes.shape[0]))
        if self.multiplies_int8(kept, d, dtype):
            like = dy.new_empty(0, dtype=torch.float32)
            of_rows = draw_dither(source, _ROWS_INT8, coded.count, coded.grid.padded, like, no_places)
            of_dy = draw_dither(source, _DY_INT8, coded.count, dy.shape[1], like, no_places)
            product = mixed_product(coded, kept, of_rows, of_dy)
        else:
            product = float_product(coded, kept, torch.float32 if dtype == torch.float16 else dtype)
        back = rotate(product, rotation_of(d, product).back, coded.grid)[:, :d].to(working)
        live = unpack_bits(saved.live, n).to(working)
        return back.addr_(live @ dy.to(working), saved.mean.to(working)).to(dtype)

    def multiplies_int8(self, dy: Float[Tensor, "k m"], d: int, dtype: torch.dtype) -> bool:
        """Whether the product with k rows of dY is taken in int8."""
        # codes of 8 bits are as fine as int8 itself, and would be rounded twice
        if self.product == "auto" and self.bits == 8:
            return False
        return uses_int8(self.product, dtype, dy.device, dy.shape[0], d, dy.shape[1])  # type: ignore[arg-type]

    def unlisted(self) -> str | None:
        """As the design that draws the rows."""
        return None if self.budget == 1.0 else self.rows_design(1).unlisted()

    def macs(self, n: int, d: int, m: int) -> int:
        """`k·d·m`, `n·(d + m)` for the mean, and 16 per number of the rows kept and of the result; d padded."""
        k, padded = rows_for(self.budget, n), grid_of(d).padded
        own = 0 if k == n else self.rows_design(n).macs(n, d, m) - k * d * m
        rotated = BLOCK * (padded + (BLOCK if d % BLOCK else 0))
        return k * padded * m + n * (d + m) + rotated * (k + m) + own

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """`dYᵀ X` over the rows of positive score, in fp64."""
        check_rows_agree(x, dy)
        return double_product(x, dy, sampling_scores(x, scores) > 0)

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """As the docstring of the class derives it.

        Raises:
            NoClosedForm: if rows are drawn by a design without one, or drawn and multiplied in int8, whose scales depend
                on the draw.
        """
        check_rows_agree(x, dy)
        checked = sampling_scores(x, scores)
        live = checked > 0
        mean = _mean(x.detach(), live)
        residuals = _Residuals(x.detach(), mean, live, None, None)
        k, n = rows_for(self.budget, x.shape[0]), x.shape[0]
        int8 = self.multiplies_int8(dy[:k], x.shape[1], product_dtype(x, dy))
        if k == n:
            own = rounding_variances(residuals, self.bits) * row_norms(dy).square()
            return own.sum() + (int8_variance(residuals, dy, self.bits) if int8 else 0.0)
        if int8:
            raise NoClosedForm(f"{self!r}: the scales of int8 depend on the rows that are drawn; use Monte Carlo")
        design, own_scores = self.rows_design(n), residual_scores(x.detach(), mean, checked)
        whole = residuals.all().double()
        sampling = design.variance(whole, dy, scores=own_scores)
        errors = rounding_variances(residuals, self.bits) * design.weight_squares(
            sampling_scores(whole, own_scores)
        )
        return sampling + (errors * row_norms(dy).square()).sum()

    def _coded(self, saved: SavedDitheredRows, source: Source) -> CodedRows:
        grid = grid_of(saved.mean.shape[0])
        like = saved.mean.new_empty(0, dtype=working_dtype(saved.mean.dtype))
        dither = draw_dither(source, _CODES, saved.codes.shape[0], grid.padded, like)
        return CodedRows(plain.Codes(saved.codes, saved.shares, saved.steps), dither, grid, self.bits)


class _Residuals(NamedTuple):
    """The rows to be coded: `x − mean`, zeros where a row is not live, some rows of x or all."""

    x: Float[Tensor, "n d"]
    mean: Float[Tensor, " d"]
    live: Bool[Tensor, " n"]
    rows: Int[Tensor, " k"] | None
    weights: Float[Tensor, " k"] | None

    @property
    def count(self) -> int:
        """k."""
        return self.x.shape[0] if self.rows is None else self.rows.shape[0]

    @property
    def grid(self) -> Grid:
        """Of the columns."""
        return grid_of(self.x.shape[1])

    @property
    def like(self) -> Float[Tensor, " 0"]:
        """Dtype and device to code in."""
        return self.x.new_empty(0, dtype=working_dtype(self.x.dtype))

    def write(self, block: slice, out: Float[Tensor, "b p"]) -> None:
        """Some of the rows, zeros behind their columns."""
        d = self.x.shape[1]
        rows = self.x[block] if self.rows is None else self.x.index_select(0, self.rows[block])
        torch.sub(rows, self.mean.to(out.dtype), out=out[:, :d])
        out[:, d:] = 0.0
        dead = ~(self.live[block] if self.rows is None else self.live.index_select(0, self.rows[block]))
        if not (has_values(dead) and not bool(dead.any())):
            out.masked_fill_(dead.unsqueeze(1), 0.0)  # what is left out may hold anything

    def all(self) -> Float[Tensor, "k d"]:
        """All of the rows."""
        out = self.like.new_empty((self.count, self.grid.padded))
        self.write(slice(0, self.count), out)
        return out[:, : self.x.shape[1]]

    def rotated(self) -> Float[Tensor, "k p"]:
        """All of the rows, rotated."""
        out = self.like.new_empty((self.count, self.grid.padded))
        self.write(slice(0, self.count), out)
        return rotate(out, rotation_of(self.grid.columns, out), self.grid)


def _mean(x: Float[Tensor, "n d"], live: Bool[Tensor, " n"]) -> Float[Tensor, " d"]:
    """The mean of the live rows, in the dtype of x."""
    working = working_dtype(x.dtype)
    share = live.to(working) / live.sum().clamp(min=1)
    if has_values(live) and bool(live.all()):
        return (share @ x.to(working)).to(x.dtype)
    return (share @ torch.where(live.unsqueeze(1), x, 0.0).to(working)).to(x.dtype)


def residual_scores(
    x: Float[Tensor, "n d"], mean: Float[Tensor, " d"], scores: Float64[Tensor, " n"]
) -> Float64[Tensor, " n"]:
    """`‖x_i − mean‖ · score_i / ‖x_i‖`; a row of zeros counts with the mean of the other factors."""
    live = scores > 0
    residuals = _Residuals(x, mean, live, None, None)
    norms, own = [], []
    buffer = residuals.like.new_empty((min(plain.BLOCK_ROWS, x.shape[0]), residuals.grid.padded))
    for block in row_blocks(x.shape[0]):
        rows = buffer[: block.stop - block.start]
        residuals.write(block, rows)
        norms.append(row_norms(rows))
        own.append(row_norms(torch.where(live[block].unsqueeze(1), x[block], 0.0)))
    of_rows, of_residuals = torch.cat(own), torch.cat(norms)
    known = live & (of_rows > 0)
    proxy = torch.where(known, scores / torch.where(known, of_rows, 1.0), 0.0)
    typical = proxy.sum() / known.sum().clamp(min=1)
    proxy = torch.where(live & ~known, torch.where(typical > 0, typical, 1.0), proxy)
    return of_residuals * proxy


def _in_order(plan: RowPlan, n: int) -> tuple[Int[Tensor, " k"], Float64[Tensor, " k"], Bool[Tensor, " n"]]:
    """The rows of a plan in ascending order with their weights, 0 beyond the last one, and which they are."""
    used = (plan.weights > 0).to(torch.float64)
    k = plan.indices.shape[0]
    kept = plan.weights.new_zeros(n).index_add(0, plan.indices, used) > 0
    weights = plan.weights.new_zeros(n).index_add(0, plan.indices, plan.weights)
    rows = _rows_of(kept, k)
    there = torch.arange(k, device=rows.device) < kept.sum()
    return rows, torch.where(there, weights.index_select(0, rows), 0.0), kept


def _rows_of(kept: Bool[Tensor, " n"], k: int) -> Int[Tensor, " k"]:
    """The kept rows in ascending order; any row beyond the last one."""
    place = torch.arange(k, device=kept.device)
    return torch.searchsorted(kept.cumsum(0), place, right=True).clamp(max=kept.shape[0] - 1)


def no_places(columns: Float[Tensor, " p"]) -> NoReturn:
    """Refused: a rounding in int8 is not listed."""
    raise InputError('dithered_rows: outcomes of product="int8" cannot be listed')


def _group_steps(
    rotated: Float[Tensor, "k p"], weights: Float[Tensor, " k"] | None, grid: Grid, bits: int
) -> Float[Tensor, "k groups"]:
    """Steps of rows without their weight."""
    peaks = rotated.view(rotated.shape[0], grid.groups, grid.size).abs().amax(2)
    return plain.step_sizes(peaks, weights, bits)[2]


def _places(residuals: _Residuals, bits: int) -> Float[Tensor, "k d"]:
    """Where the numbers of all kept rows lie among the levels: for enumeration."""
    rotated, grid = residuals.rotated(), residuals.grid
    sizes = _spread(_group_steps(rotated, residuals.weights, grid, bits), grid)
    return rotated[:, : grid.columns] / torch.where(sizes > 0, sizes, 1.0) + plain.top_of(bits) / 2


def rounding_variances(residuals: _Residuals, bits: int) -> Float64[Tensor, " n"]:
    """`V_i = Σ_j Δ_ij²/12` of every row without its weight."""
    grid = residuals.grid
    steps = _group_steps(residuals.rotated(), None, grid, bits).double()
    return _spread(steps, grid).square().sum(1) / 12


def _spread(values: Float[Tensor, "n groups"], grid: Grid) -> Float[Tensor, "n d"]:
    """What belongs to groups, for every column."""
    return values.repeat_interleave(grid.size, dim=1)[:, : grid.columns]


def int8_variance(residuals: _Residuals, dy: Float[Tensor, "n m"], bits: int) -> Float64[Tensor, ""]:
    """What rounding to int8 adds to all rows' product: `Σ_i [‖y_i‖² A_i + (‖R_i‖² + V_i + A_i) B_i]`."""
    grid, rotated = residuals.grid, residuals.rotated()
    peaks = rotated.view(residuals.count, grid.groups, grid.size).abs().amax(2)
    shares, steps, sizes = plain.step_sizes(peaks, None, bits)
    scales = int8_scales(steps, dy, bits)
    light = (scales.units > 0).double()
    # numbers in int8's units: the row's largest step is c, a group's a share of it
    width = _spread(shares.double() * (row_factor(bits) / plain.SHARES), grid)
    spread = _spread(sizes.double(), grid)
    there = spread > 0
    place = rotated[:, : grid.columns].double() / torch.where(there, spread, 1.0) * width
    unit = (steps.double() / row_factor(bits)).square()
    rounding = torch.where(there, mean_fraction_variance(place, torch.where(there, width, 1.0)), 0.0)
    of_rows = rounding.sum(1) * unit
    places = dy.double() * (scales.units.double().unsqueeze(1) / scales.columns.double())
    # in units of the rows: the factor of a row is in the numbers of dY
    of_dy = (fraction_variance(places) * scales.columns.double().square()).sum(1) * light
    of_dy = of_dy / torch.where(unit > 0, unit, 1.0)
    square = rotated[:, : grid.columns].double().square().sum(1) + spread.square().sum(1) / 12
    return (light * (row_norms(dy).square() * of_rows + (square + of_rows) * of_dy)).sum()
