"""`dithered_rows`: rows less their mean, rotated in small blocks, in few bits with n + d random numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, NoReturn

import torch
from jaxtyping import Bool, Float, Float64, Int, Int32, Int64, Shaped, UInt8
from torch import Tensor

from wtacrs.estimators.composites.mixed_precision_rows import DESIGNS
from wtacrs.estimators.composites.residual_rows import (
    Residuals,
    encode_rows,
    int8_variance,
    mean_of,
    places_of,
    residual_scores,
    rounding_variances,
)
from wtacrs.estimators.composites.widths import MOST_SLOTS, Chosen, Part, Picked, Widths, parts_of, widths_for
from wtacrs.estimators.core.base import Published, Traits
from wtacrs.estimators.core.checks import check_choice, check_length, check_rows_agree
from wtacrs.estimators.core.counter_rng import CounterStream, Source
from wtacrs.estimators.core.dither import draw_dither
from wtacrs.estimators.core.errors import InputError, NoClosedForm
from wtacrs.estimators.core.nonzero_rows import nonzero_rows
from wtacrs.estimators.core.packing import pack_bits, unpack_bits
from wtacrs.estimators.core.products import double_product, product_dtype, working_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.scores import has_values, row_norms, sampling_scores
from wtacrs.estimators.core.sizing import check_slots, slots_for
from wtacrs.estimators.core.sourced import RandomChoices, RegeneratingEstimator
from wtacrs.estimators.core.stored_pairs import StoredRows
from wtacrs.estimators.kernels import plain
from wtacrs.estimators.kernels.choice import SETS, kernels_for
from wtacrs.estimators.kernels.coded_product import CodedRows, Known, float_product, mixed_product
from wtacrs.estimators.kernels.grid import BLOCK, Grid, Rotation, grid_of, rotate, rotation_of
from wtacrs.estimators.kernels.int8_product import PRECISIONS, uses_int8
from wtacrs.estimators.rows.fixed_size import FixedSizeEstimator

LIGHT = 0.1
"""Share of the mean score below which a row may be left out even where slots are left."""
# streams of a seed: pairs of rows and columns for the codes, for the rows in int8, and for dY in int8
_CODES, _ROWS_INT8, _DY_INT8 = (0, 1), (2, 3), (4, 5)


class SavedDitheredRows(NamedTuple):
    """Codes of the kept rows, the heavy ones first, their steps, which rows they are, and the mean."""

    codes: UInt8[Tensor, " bytes"]
    shares: UInt8[Tensor, "k groups"]
    steps: Float[Tensor, " k"]
    kept: UInt8[Tensor, " b"]  # a bit per row
    heavy: UInt8[Tensor, " b"]  # rows in twice as many bits
    live: UInt8[Tensor, " b"]  # rows of positive score
    wanted: Int32[Tensor, ""]  # rows that the slots were divided among, where it was counted
    mean: Float[Tensor, " d"]
    seed: Int64[Tensor, " 1"]
    shape_carrier: Float[Tensor, "n 0"]  # no bytes: carries n and the dtype of x


@register("dithered_rows")
@dataclass(frozen=True, repr=False)
class DitheredRows(RegeneratingEstimator[SavedDitheredRows]):
    """`X = 1 μᵀ + R`: the mean as it is, rows of R rotated and rounded: `Ĝ = (Σ y_i) μᵀ + Σ_kept y_i Q(R_i H/π_i)ᵀ Hᵀ`.

    μ is the mean of the rows of positive score, as it is stored; H is a fixed orthogonal matrix of signed Hadamard
    matrices of 16 features, which spreads what stands out (Suresh et al., "Distributed Mean Estimation with Limited
    Communication", ICML 2017, arXiv 1611.00429, where all features are rotated together). Q rounds to 2^bits levels by
    subtractive dithering (see `wtacrs.estimators.core.packing`), every group of 64 features with a step of its own that
    is stored as a share of the row's. Feature j of row i has the dither `u_ij = (r_i + s_j) mod 1` from k + d random
    numbers (see `wtacrs.estimators.core.dither`).

    S slots of two bits a number are spread evenly over k rows (see `widths_for`): all have 2, 4 or 8 bits, the heaviest
    ones twice as many where slots are left. k is the number of rows of positive score, less some where their scores
    are below a tenth of the mean (see `rows_worth_keeping`), and at most S. If that is not all, rows are drawn by
    `‖R_i‖ · score_i / ‖x_i‖`, the last factor the proxy of ‖y_i‖, and weighed by 1/π_i. Rows are counted on the CPU
    alone, so that nothing waits for a device: elsewhere all count, and those of score 0 are coded as zeros.

    Mean: widths, steps and weights are functions of x, the scores and the draw of the rows, never of the dither. The
    error of number j of row i is `(½ − frac(p_ij + u_ij)) Δ_ij`, and `frac(p + u)` is uniform on [0, 1): `E Q(z) = z`
    given the draw, whatever s is. A row is kept with probability π_i, 1 if all are:
    `EĜ = (Σ y_i) μᵀ + Σ_i π_i y_i (R_i H/π_i)ᵀ Hᵀ = dYᵀ 1 μᵀ + dYᵀ R = G`.

    Variance: the part of the mean has none, and H changes no norm. Errors have mean 0 and variance Δ²/12, and any two are
    uncorrelated, since two dithers are independent. With `V_i = Σ_j Δ_ij²/12` of the row without its weight

        Var Ĝ = Var_rows(R, dY) + Σ_i V_i ‖y_i‖² / π_i,

    the first term that of the design, 0 if all rows are kept (up to the rounding of steps, which depends on the weight).

    Precision of the product: "float" multiplies in the precision of the exact product. "int8" rounds the decoded rows and
    dY to int8 without bias, by dither of their own, but for the 64 heaviest pairs (see
    `wtacrs.estimators.kernels.int8_product`): the estimate is then linear in dY in the mean only. With x̂ the decoded rows
    and c_a the scale of column a, the other pairs add, given the draw,

        Σ_i [‖y_i‖² A_i + (‖R_i‖² + V_i + A_i) B_i],   A_i = Σ_j E V(x̂_ij), B_i = Σ_a c_a² V(y_ia/c_a).

    "auto" is int8 where that is faster: for 512 rows or more, on a CPU with VNNI from 2^26 multiply-accumulates, on CUDA
    with tensor cores for int8 from 2^33; never in fp64 (see `uses_int8`).

    Kernels: "plain" is PyTorch alone. "compiled" has inductor compile what is done to a block of rows, once for every
    width of a layer, which takes seconds and a C++ compiler; fewer than 512 rows have plain kernels. What is stored and
    the estimate are the same bit by bit (see `wtacrs.estimators.kernels.compiled`). "triton" has kernels for CUDA,
    `pip install "wtacrs[triton]"`, whose codes have the same law and seldom differ (see
    `wtacrs.estimators.kernels.triton_kernels`).

    Bytes: S·d/4, d/64 for shares and 2 for the step of min(S, n) rows, 3n/8 for which rows are of positive score, kept
    and heavy, 2d in bf16 for the mean, 12 for seed and count. d counts as the next multiple of 64 (below 49: of 16).
    MACs: `(k + 1)·d·m`, and 16 per number for the rotation of the rows and of the result.

    Args:
        slots: int ≥ 1, the number S of slots, or float in (0, 4], slots per row: 2.0 is 4 bits a number.
        design: how rows are drawn, "systematic", "pivotal", "conditional_poisson" or "sampford".
        product: "auto", "float" or "int8".
        kernels: "plain", "compiled" or "triton".

    >>> import torch
    >>> from wtacrs.estimators import make, saved_bytes
    >>> x, dy = torch.randn(512, 128) + 1.0, torch.randn(512, 8)
    >>> dithered, rounded = make("dithered_rows(slots=2.0)"), make("stochastic_rounding(bits=4)")
    >>> saved_bytes(dithered.compress(x)), saved_bytes(rounded.compress(x))
    (35532, 33792)
    >>> bool(dithered.variance(x, dy) < 0.4 * rounded.variance(x, dy))
    True
    """

    slots: int | float
    design: str = "systematic"
    product: str = "auto"
    kernels: str = "plain"

    published: ClassVar[Published] = Published("this project", unbiased=None)
    traits: ClassVar[Traits] = Traits(
        family="composite", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=False
    )

    def __post_init__(self) -> None:
        check_slots(self.slots, MOST_SLOTS, self.name)
        check_choice("design", self.design, DESIGNS, self.name)
        check_choice("product", self.product, PRECISIONS, self.name)
        check_choice("kernels", self.kernels, SETS, self.name)

    def slots_for(self, n: int) -> int:
        """S for n rows: at least 1, and no more than n rows can use."""
        return slots_for(self.slots, MOST_SLOTS, n)

    def rows_design(self, rows: int) -> FixedSizeEstimator:
        """The design that draws so many rows where not all are kept."""
        return DESIGNS[self.design](budget=max(rows, 1))

    def keep(
        self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"], source: RandomChoices
    ) -> SavedDitheredRows:
        """Take the mean off, choose the rows, rotate and code them."""
        x = x.detach()
        live = scores > 0
        residuals = Residuals(x, mean_of(x, live), live)
        widths = widths_for(self.slots_for(x.shape[0]), rows_worth_keeping(scores))
        chosen = self._choose(residuals, scores, widths, source)
        seed, numbers = source.seeded()
        codes, shares, steps = self._encode(residuals, chosen, widths, numbers)
        return SavedDitheredRows(
            codes,
            shares,
            steps,
            kept=pack_bits(chosen.kept),
            heavy=pack_bits(chosen.heavy),
            live=pack_bits(live),
            wanted=torch.full((), widths.wanted, dtype=torch.int32, device=x.device),
            mean=residuals.mean,
            seed=seed,
            shape_carrier=x.new_empty((x.shape[0], 0)),
        )

    def _choose(
        self, residuals: Residuals, scores: Float64[Tensor, " n"], widths: Widths, source: RandomChoices | None
    ) -> Chosen:
        """Draw the rows unless all are kept (then no source is needed), and say which are heavy."""
        n = scores.shape[0]
        kept = torch.ones_like(residuals.live)
        heavy, weights = ~kept, None
        drawn = widths.rows < _count(residuals.live)
        sizes = residual_scores(residuals, scores, self._kernels(residuals)) if widths.heavy or drawn else scores
        if drawn:
            assert source is not None
            plan = source.plan(self.rows_design(widths.rows), sizes)
            used = (plan.weights > 0).to(torch.float64)
            kept = scores.new_zeros(n).index_add(0, plan.indices, used) > 0
            weights = scores.new_zeros(n).index_add(0, plan.indices, plan.weights).to(residuals.like.dtype)
        elif _count(residuals.live) < n:
            kept = residuals.live
        if widths.heavy:
            heavy = heavy.index_fill(0, torch.where(kept, sizes, -1.0).topk(widths.heavy).indices, True)
        return Chosen(kept, heavy, weights)

    def _kernels(self, residuals: Residuals) -> plain.Kernels:
        return kernels_for(self.kernels, residuals.like, residuals.grid)

    def _encode(self, residuals: Residuals, chosen: Chosen, widths: Widths, source: Source) -> plain.Codes:
        """Code the heavy rows and behind them the others; what is left of the room is zeros."""
        grid, like, n = residuals.grid, residuals.like, residuals.x.shape[0]
        slots = self.slots_for(n)
        most = min(slots, n)
        dither = draw_dither(
            source,
            _CODES,
            most,
            grid.padded,
            like,
            lambda columns: _places(residuals, chosen, widths, most) + columns[: grid.columns],
        )
        codes = torch.zeros(slots * grid.padded // 4, dtype=torch.uint8, device=like.device)
        shares = torch.zeros((most, grid.groups), dtype=torch.uint8, device=like.device)
        steps = torch.zeros(most, dtype=plain.step_dtype(like), device=like.device)
        kernels = self._kernels(residuals)
        for part in parts_of(widths, grid):
            rows = part.rows_of(chosen, n)
            out = plain.Codes(codes[part.bytes].view(part.size, -1), shares[part.slots], steps[part.slots])
            weights = chosen.weights_of(rows)
            encode_rows(residuals, rows, weights, dither.of(part.slots), part.bits, out, kernels)
        return plain.Codes(codes, shares, steps)

    def finish(self, saved: SavedDitheredRows, dy: Float[Tensor, "n m"], source: Source) -> Float[Tensor, "m d"]:
        """Sum the pairs of the decoded rows, rotate back, and add the mean's part."""
        return self._sum(saved, dy, source, None)

    def contract_slots(
        self,
        saved: SavedDitheredRows,
        dy: Float[Tensor, "n m"],
        slots: Int[Tensor, " s"],
        factors: Float[Tensor, " s"],
    ) -> Float[Tensor, "m d"]:
        """The mean's part, and the pairs of these slots times their factors; only these rows are decoded."""
        return self._sum(saved, dy, CounterStream(saved.seed), Picked(slots, factors))

    def _sum(
        self, saved: SavedDitheredRows, dy: Float[Tensor, "n m"], source: Source, picked: Picked | None
    ) -> Float[Tensor, "m d"]:
        check_length(saved.shape_carrier, dy)
        dy = dy.detach()  # buffers are written in place, and what is rounded has no derivative
        d, dtype = saved.mean.shape[0], product_dtype(saved.mean, dy)
        working, grid = working_dtype(dtype), grid_of(saved.mean.shape[0])
        rotation = rotation_of(d, saved.mean.new_empty(0, dtype=working)).back
        known = self._mean_pair(saved, dy, grid)
        product: Tensor | None = None
        for part, coded, rows in self._coded(saved, source):
            if picked is not None:
                inside, factors = picked.within(part.slots)
                own = inside if rows is None else rows.index_select(0, inside)
                coded, kept = coded.take(inside), dy.index_select(0, own) * factors.to(working).unsqueeze(1)
            else:
                kept = dy if rows is None else dy.index_select(0, rows)
                nonzero = nonzero_rows(kept, grid.padded)
                if nonzero is not None:
                    coded, kept = coded.take(nonzero), kept.index_select(0, nonzero)
            found = self._product(coded, kept, dtype, source, rotation, known).to(working)
            product = found if product is None else product.add_(found)
            known = Known(known.dy[:0], known.rows[:0])  # the mean counts once
        product = known.dy.T @ known.rows if product is None else product
        return product[:, :d].to(dtype).contiguous()

    def _mean_pair(self, saved: SavedDitheredRows, dy: Float[Tensor, "n m"], grid: Grid) -> Known:
        """The sum of the rows of dY that count, and the mean."""
        working = working_dtype(product_dtype(saved.mean, dy))
        live = unpack_bits(saved.live, dy.shape[0]).to(working)
        mean = torch.nn.functional.pad(saved.mean.to(working), (0, grid.padded - grid.columns))
        return Known((live @ dy.to(working)).unsqueeze(0), mean.unsqueeze(0))

    def _parts(self, saved: SavedDitheredRows) -> Iterator[tuple[Part, Int[Tensor, " k"] | None]]:
        """The heavy rows and the others, each with their indices; None for all rows in their order."""
        n, grid = saved.shape_carrier.shape[0], grid_of(saved.mean.shape[0])
        chosen = Chosen(unpack_bits(saved.kept, n), unpack_bits(saved.heavy, n), None)
        count = int(saved.wanted) if has_values(saved.wanted) else n
        for part in parts_of(widths_for(self.slots_for(n), count), grid):
            yield part, part.rows_of(chosen, n)

    def _coded(
        self, saved: SavedDitheredRows, source: Source
    ) -> Iterator[tuple[Part, CodedRows, Int[Tensor, " k"] | None]]:
        """`_parts` with their codes."""
        grid = grid_of(saved.mean.shape[0])
        like = saved.mean.new_empty(0, dtype=working_dtype(saved.mean.dtype))
        dither = draw_dither(source, _CODES, saved.steps.shape[0], grid.padded, like)
        kernels = kernels_for(self.kernels, like, grid)
        for part, rows in self._parts(saved):
            codes = plain.Codes(
                saved.codes[part.bytes].view(part.size, -1), saved.shares[part.slots], saved.steps[part.slots]
            )
            slots = torch.arange(part.slots.start, part.slots.stop, device=codes.codes.device)
            yield part, CodedRows(codes, dither.of(part.slots), slots, grid, part.bits, kernels), rows

    def pair_slots(self, n: int) -> int:
        """Rows that can be kept (see `wtacrs.estimators.core.stored_pairs`, as for what follows)."""
        return min(self.slots_for(n), n)

    def slot_macs(self, d: int, m: int) -> int:
        """`d·m`, d padded."""
        return grid_of(d).padded * m

    def slot_norms(self, saved: SavedDitheredRows, dy: Float[Tensor, "n m"]) -> Float64[Tensor, " k"]:
        """What a row of such steps has on average, `√(Σ_j Δ² (L²/28 + 1/12))`, times ‖y‖: no code is looked at.

        The largest of 64 normal numbers, L Δ/2, has a square of about 7 times theirs; rounding adds Δ²/12.
        """
        sizes, bits = self._slot_steps(saved, dy)
        return sizes * ((2.0**bits - 1.0).square() / 28 + 1 / 12).sqrt()

    def variance_estimate(self, saved: SavedDitheredRows, dy: Float[Tensor, "n m"]) -> Float64[Tensor, ""]:
        """`Σ Δ²/12 ‖y‖²`, exact where all rows are kept; the weights of others are not stored."""
        return self._slot_steps(saved, dy)[0].square().sum() / 12

    def _slot_steps(
        self, saved: SavedDitheredRows, dy: Float[Tensor, "n m"]
    ) -> tuple[Float64[Tensor, " k"], Float64[Tensor, " k"]]:
        """`√(Σ_j Δ_j²) ‖y‖` of every slot, and its bits."""
        check_length(saved.shape_carrier, dy)
        grid = grid_of(saved.mean.shape[0])
        starts = torch.arange(grid.groups, device=dy.device) * grid.size
        columns = (grid.columns - starts).clamp(max=grid.size).double()
        steps = saved.shares.double() * (saved.steps.double() / plain.SHARES).unsqueeze(1)
        live = unpack_bits(saved.live, dy.shape[0])
        if not (has_values(live) and bool(live.all())):
            dy = torch.where(live.unsqueeze(1), dy, 0.0)  # rows of score 0 may hold anything
        sizes, norms = row_norms(steps * columns.sqrt()), row_norms(dy)
        found, bits = torch.zeros_like(sizes), torch.zeros_like(sizes)
        for part, rows in self._parts(saved):
            bits[part.slots] = part.bits
            found[part.slots] = norms if rows is None else norms.index_select(0, rows)
        return sizes * found, bits

    def stored_rows(self, saved: SavedDitheredRows) -> StoredRows:
        """The decoded rows, rotated back, without the mean."""
        d, k = saved.mean.shape[0], saved.steps.shape[0]
        found = StoredRows(
            torch.zeros((k, d), dtype=torch.float64, device=saved.mean.device),
            torch.zeros(k, dtype=torch.int64, device=saved.mean.device),
        )
        for part, coded, rows in self._coded(saved, CounterStream(saved.seed)):
            like = coded.dither.rows
            numbers, scratch = (like.new_empty((part.size, coded.grid.padded)) for _ in range(2))
            plain.decode(coded.codes, coded.dither, coded.grid, coded.bits, numbers, scratch)
            decoded = numbers.double() * coded.codes.steps.double().unsqueeze(1)
            found.rows[part.slots] = rotate(decoded, rotation_of(d, decoded).back, coded.grid)[:, :d]
            found.indices[part.slots] = torch.arange(part.size, device=like.device) if rows is None else rows
        return found

    def _product(
        self,
        coded: CodedRows,
        dy: Float[Tensor, "k m"],
        dtype: torch.dtype,
        source: Source,
        rotation: Rotation,
        known: Known,
    ) -> Float[Tensor, "m p"]:
        if not self.multiplies_int8(dy, coded.grid.columns, dtype):
            factors = torch.float32 if dtype == torch.float16 else dtype
            return float_product(coded, dy, factors, rotation, known)
        like = dy.new_empty(0, dtype=torch.float32)
        of_rows, of_dy = (
            draw_dither(source, streams, coded.slots, columns, like, no_places)
            for streams, columns in ((_ROWS_INT8, coded.grid.padded), (_DY_INT8, dy.shape[1]))
        )
        return mixed_product(coded, dy, of_rows, of_dy, rotation, known)

    def multiplies_int8(self, dy: Float[Tensor, "k m"], d: int, dtype: torch.dtype) -> bool:
        """Whether the product with k rows of dY is taken in int8."""
        return uses_int8(self.product, dtype, dy.device, dy.shape[0], d, dy.shape[1])  # type: ignore[arg-type]

    def unlisted(self) -> str | None:
        """As the design that draws the rows."""
        return self.rows_design(1).unlisted()

    def macs(self, n: int, d: int, m: int) -> int:
        """`(k + 1)·d·m`, `n·(d + m)` for the mean, and 16 per number of the rows kept and of the result of each width."""
        widths, padded = widths_for(self.slots_for(n), n), grid_of(d).padded
        own = self.rows_design(widths.rows).draw_macs(n) if widths.rows < n else 0
        rotated = BLOCK * (padded + (BLOCK if d % BLOCK else 0))
        results = sum(m for _ in parts_of(widths, grid_of(d)))
        return (widths.rows + 1) * padded * m + n * (d + m) + rotated * (widths.rows + results) + own

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
            NoClosedForm: if rows are drawn by a design without one; or are drawn, and some are heavy or multiplied in
                int8, which depends on the draw.
        """
        check_rows_agree(x, dy)
        x, n = x.detach(), x.shape[0]
        checked = sampling_scores(x, scores)
        live = checked > 0
        residuals = Residuals(x, mean_of(x, live), live)
        widths = widths_for(self.slots_for(n), rows_worth_keeping(checked))
        if widths.rows < _count(live):
            return self._sampled_variance(residuals, dy, checked, widths)
        chosen = self._choose(residuals, checked, widths, None)
        total = checked.new_zeros(())
        for part in parts_of(widths, residuals.grid):
            rows = part.rows_of(chosen, n)
            own = dy if rows is None else dy.index_select(0, rows)
            errors = rounding_variances(residuals, rows, part.bits)
            total = total + (errors * row_norms(own).square()).sum()
            nonzero = nonzero_rows(own, residuals.grid.padded)
            if nonzero is not None:  # what is multiplied, and so what is rounded once more
                own, rows = own.index_select(0, nonzero), nonzero if rows is None else rows[nonzero]
            if self.multiplies_int8(own, x.shape[1], product_dtype(x, dy)):
                total = total + int8_variance(residuals, rows, own, part.bits)
        return total

    def _sampled_variance(
        self, residuals: Residuals, dy: Float[Tensor, "n m"], scores: Float64[Tensor, " n"], widths: Widths
    ) -> Float64[Tensor, ""]:
        x, dtype = residuals.x, product_dtype(residuals.x, dy)
        if any(self.multiplies_int8(dy[: p.size], x.shape[1], dtype) for p in parts_of(widths, residuals.grid)):
            raise NoClosedForm(f"{self!r}: the scales of int8 depend on the rows that are drawn; use Monte Carlo")
        if widths.heavy:
            raise NoClosedForm(f"{self!r}: which rows are heavy depends on those that are drawn; use Monte Carlo")
        design, own = self.rows_design(widths.rows), residual_scores(residuals, scores)
        whole = residuals.all(None).double()
        sampling = design.variance(whole, dy, scores=own)
        errors = rounding_variances(residuals, None, widths.bits)
        squares = design.weight_squares(sampling_scores(whole, own))
        return sampling + (errors * squares * row_norms(dy).square()).sum()


def _places(residuals: Residuals, chosen: Chosen, widths: Widths, most: int) -> Float[Tensor, "k d"]:
    """Where the numbers of all slots lie among their levels: for enumeration."""
    grid = residuals.grid
    found = residuals.like.new_zeros((most, grid.columns))
    for part in parts_of(widths, grid):
        rows = part.rows_of(chosen, residuals.x.shape[0])
        found[part.slots] = places_of(residuals, rows, chosen.weights_of(rows), part.bits)
    return found


def _count(live: Bool[Tensor, " n"]) -> int:
    """The rows of positive score where that can be known without waiting for a device, else all."""
    return int(live.sum()) if has_values(live) else live.shape[0]


def rows_worth_keeping(scores: Float64[Tensor, " n"]) -> int:
    """How many rows slots are divided among: `Σ min(1, s_i / (0.1 s̄))`, rounded up, s̄ the mean positive score.

    All of them where no score is far below the others: one row is left out in the place of every ten whose scores are a
    hundredth of the mean, such as rows that a mask calls padding. Counted where that does not wait for a device, else n.
    """
    if not has_values(scores):
        return scores.shape[0]
    light = LIGHT * scores.sum() / (scores > 0).sum().clamp(min=1)
    shares = (scores / torch.where(light > 0, light, 1.0)).clamp(max=1.0)
    return math.ceil(float(shares.sum()) - 1e-9)


def no_places(_: Float[Tensor, " p"]) -> NoReturn:
    """Refused: a rounding in int8 is not listed."""
    raise InputError('dithered_rows: outcomes of product="int8" cannot be listed')
