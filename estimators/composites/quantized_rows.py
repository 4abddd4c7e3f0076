"""`quantized_rows`: the rows of any row design, stored in 8, 4 or 2 bits by stochastic rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64, Int, Int64, Shaped, UInt8
from torch import Tensor

from wtacrs.estimators.core.base import Published, Traits
from wtacrs.estimators.core.checks import check_length, check_rows_agree
from wtacrs.estimators.core.counter_rng import CounterStream, Source, Uniforms, entry_counters
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.packing import (
    Packed,
    check_bits,
    grid_places,
    pack,
    rounding_variance,
    spread_steps,
    unpack,
)
from wtacrs.estimators.core.products import product_dtype, working_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.row_design import RowPlan
from wtacrs.estimators.core.scores import row_norms, sampling_scores
from wtacrs.estimators.core.sourced import RandomChoices, RegeneratingEstimator
from wtacrs.estimators.core.stored_pairs import StoredRows
from wtacrs.estimators.rows.row_estimator import RowEstimator, weighted_product

ROUNDINGS = ("dithered", "stochastic")


class SavedPackedRows(NamedTuple):
    """k packed weighted rows, 2 bytes per step, 2 per index (4 beyond 32,768 rows), and a seed if dithered."""

    codes: UInt8[Tensor, "k bytes"]
    steps: Float[Tensor, "k groups"]
    indices: Int[Tensor, " k"]
    seed: Int64[Tensor, " s"]
    shape_carrier: Float[Tensor, "n 0"]  # no bytes: carry n, d and the dtype of x
    columns: Float[Tensor, "d 0"]


@register("quantized_rows")
@dataclass(frozen=True, repr=False)
class QuantizedRows(RegeneratingEstimator[SavedPackedRows]):
    """Rows drawn by `rows` and stored with stochastic rounding: more rows for the same bytes.

    Source of the stochastic rounding: ActNN (Chen et al., ICML 2021, arXiv 2104.14129), which keeps every row;
    here it is put on top of sampling. The row is weighted first and rounded then, `Q(weight_j x_(i_j))`, so that
    no weight is stored; both ways of rounding (see `wtacrs.estimators.core.packing`) are unbiased, fresh for every slot,
    and independent of the draw: `Ĝ = Σ_j y_(i_j) Q(weight_j x_(i_j))ᵀ`.

    Mean: given the draw, `E Q(weight_j x_i) = weight_j x_i`, so that EĜ is the mean of the row design alone.

    Variance: by conditioning on the draw (law of total variance), with V_i = E‖Q(x_i) − x_i‖², which a weight
    multiplies by its square, and since the roundings of different slots are independent of each other,

        Var Ĝ = Var_rows + Σ_i V_i ‖y_i‖² · E Σ_{slots j that hold i} weight_j²,

    the last factor being 1/π_i for a design that includes row i with probability π_i and weighs it 1/π_i. V_i is
    Σ_j Δ²/12 dithered and Σ_j Δ² f_ij (1 − f_ij) by stochastic rounding (up to the rounding of Δ to bf16, which
    depends on the weight).

    Bytes: k rows of bits·d/8 + 2 per group + 2 or 4 for the index; dithered 8 for the seed. MACs:
    those of `rows`, `k·d·m`, beside the unpacking.

    Args:
        rows: any row design.
        bits: 8, 4 or 2.
        group: numbers that share a step; None for a whole row.
        rounding: "dithered" (half the variance, the dither is regenerated) or "stochastic".

    >>> import torch
    >>> x = torch.randn(64, 16)
    >>> from wtacrs.estimators import make, saved_bytes
    >>> estimator = make("quantized_rows(bits=4, rows=systematic(budget=0.25))")
    >>> saved_bytes(estimator.compress(x)), saved_bytes(estimator.rows.compress(x))
    (200, 1152)
    """

    rows: RowEstimator
    bits: int = 4
    group: int | None = None
    rounding: str = "dithered"

    published: ClassVar[Published] = Published(
        "this project, on Gupta et al. 2015 and Schuchman 1964", unbiased=None
    )
    traits: ClassVar[Traits] = Traits(
        family="composite", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=False
    )

    def __post_init__(self) -> None:
        if not isinstance(self.rows, RowEstimator):
            raise InputError(
                f"quantized_rows: rows={self.rows!r} must be a row design such as systematic(budget=0.3)"
            )
        check_bits(self.bits, self.group, self.name)
        if not isinstance(self.rounding, str) or self.rounding not in ROUNDINGS:
            raise InputError(f'quantized_rows: rounding={self.rounding!r} must be "dithered" or "stochastic"')

    def keep(
        self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"], source: RandomChoices
    ) -> SavedPackedRows:
        """Gather the rows of a plan, weight and pack them."""
        plan = source.plan(self.rows, scores)
        numbers: Uniforms
        if self.rounding == "dithered":
            seed, numbers = source.seeded()
        else:
            seed = torch.zeros(0, dtype=torch.int64, device=x.device)
            numbers = source.fresh(working_dtype(x.dtype))
        weighted = _weighted(x, plan)
        uniforms = numbers.uniforms(0, entry_counters(weighted), lambda: self.places(x, plan)).to(weighted.dtype)
        return SavedPackedRows(
            *pack(weighted, self.bits, self.group, uniforms),
            indices=plan.indices.to(torch.int16 if x.shape[0] <= 2**15 else torch.int32),
            seed=seed,
            shape_carrier=x.new_empty((x.shape[0], 0)),
            columns=x.new_empty((x.shape[1], 0)),
        )

    def finish(self, saved: SavedPackedRows, dy: Float[Tensor, "n m"], source: Source) -> Float[Tensor, "m d"]:
        """What `contract` returns; a dither comes from the source once more."""
        check_length(saved.shape_carrier, dy)
        dtype = product_dtype(saved.columns, dy)
        working = torch.float32 if dtype == torch.float16 else dtype
        rows = self._unpacked(saved, source, None, working)
        return (dy.index_select(0, saved.indices.to(torch.int32)).to(working).T @ rows).to(dtype)

    def _unpacked(
        self, saved: SavedPackedRows, source: Source, slots: Int[Tensor, " s"] | None, working: torch.dtype
    ) -> Float[Tensor, "s d"]:
        """The weighted rows of some slots, None for all, as they are read again."""
        d, packed, dither = saved.columns.shape[0], Packed(saved.codes, saved.steps), None
        counters = entry_counters(saved.codes.new_empty((saved.indices.shape[0], d)))
        if slots is not None:
            packed = Packed(*(part.index_select(0, slots) for part in packed))
            counters = counters.index_select(0, slots)
        if self.rounding == "dithered":
            dither = source.uniforms(0, counters)
        return unpack(packed, d, self.bits, self.group, working, dither)

    def pair_slots(self, n: int) -> int:
        """Those of the row design (see `wtacrs.estimators.core.stored_pairs`, as for what follows)."""
        return self.rows.pair_slots(n)

    def slot_macs(self, d: int, m: int) -> int:
        """`d·m`."""
        return d * m

    def slot_norms(self, saved: SavedPackedRows, dy: Float[Tensor, "n m"]) -> Float64[Tensor, " k"]:
        """Norms of the codes times their steps, and ‖y‖: exact but for the dither, which is not drawn for it."""
        working = working_dtype(saved.columns.dtype)
        packed = Packed(saved.codes, saved.steps)
        rows = unpack(packed, saved.columns.shape[0], self.bits, self.group, working)
        return row_norms(rows) * self._dy_norms(saved, dy)

    def _dy_norms(self, saved: SavedPackedRows, dy: Float[Tensor, "n m"]) -> Float64[Tensor, " k"]:
        check_length(saved.shape_carrier, dy)
        return row_norms(dy.index_select(0, saved.indices.to(torch.int32)))

    def variance_estimate(self, saved: SavedPackedRows, dy: Float[Tensor, "n m"]) -> Float64[Tensor, ""]:
        """What the rounding adds, dithered `Σ Δ²/12 ‖y‖²`, else the mean over all places Δ²/6; no weight is stored."""
        steps = spread_steps(saved.steps, saved.columns.shape[0], self.group)
        errors = steps.double().square().sum(1) / (12 if self.rounding == "dithered" else 6)
        return (errors * self._dy_norms(saved, dy).square()).sum()

    def stored_rows(self, saved: SavedPackedRows) -> StoredRows:
        """The rows as they are read again, in the precision of the product."""
        rows = self._unpacked(saved, CounterStream(saved.seed), None, working_dtype(saved.columns.dtype))
        return StoredRows(rows.double(), saved.indices.to(torch.int32))

    def contract_slots(
        self,
        saved: SavedPackedRows,
        dy: Float[Tensor, "n m"],
        slots: Int[Tensor, " s"],
        factors: Float[Tensor, " s"],
    ) -> Float[Tensor, "m d"]:
        """`Σ_s factors_s · y_(i_j) Q(weight_j x_(i_j))ᵀ`; only these rows are unpacked."""
        check_length(saved.shape_carrier, dy)
        dtype = product_dtype(saved.columns, dy)
        working = torch.float32 if dtype == torch.float16 else dtype
        rows = self._unpacked(saved, CounterStream(saved.seed), slots, working)
        own = saved.indices.to(torch.int32).index_select(0, slots)
        return weighted_product(rows, own, factors.to(working_dtype(dtype)), dy).to(dtype)

    def places(self, x: Float[Tensor, "n d"], plan: RowPlan) -> Float[Tensor, "k d"]:
        """Numbers p such that entry p with uniform number u has the code ⌊p + u⌋: for enumeration."""
        return grid_places(_weighted(x, plan), self.bits, self.group)

    def unlisted(self) -> str | None:
        """As the row design."""
        return self.rows.unlisted()

    def macs(self, n: int, d: int, m: int) -> int:
        """Those of the row design."""
        return self.rows.macs(n, d, m)

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """That of the row design."""
        return self.rows.expectation(x, dy, scores=scores)

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`Var_rows + Σ_i V_i ‖y_i‖² E Σ weight²`.

        Raises:
            NoClosedForm: if the row design has none.
        """
        sampling = self.rows.variance(x, dy, scores=scores)
        return sampling + self.rounding_part(x, dy, scores=scores)

    def rounding_part(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """What the rounding adds to the variance of the row design."""
        check_rows_agree(x, dy)
        squares = self.rows.weight_squares(sampling_scores(x, scores))
        return (
            rounding_variance(x, self.bits, self.group, dithered=self.rounding == "dithered")
            * row_norms(dy).square()
            * squares
        ).sum()


def _weighted(x: Float[Tensor, "n d"], plan: RowPlan) -> Float[Tensor, "k d"]:
    working = working_dtype(x.dtype)
    return x.index_select(0, plan.indices).to(working) * plan.weights.to(working).unsqueeze(1)
