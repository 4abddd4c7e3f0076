"""`mixed_precision_rows`: rows sampled without replacement, each stored with as many bits as it deserves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64, Int, Int64, Shaped, UInt8
from torch import Tensor

from wtacrs.estimators.composites.slots import (
    BITS_PER_SLOT,
    MOST_SLOTS,
    Allotment,
    allot,
    peak_to_rms,
    relative_error,
)
from wtacrs.estimators.core.base import Published, Traits
from wtacrs.estimators.core.checks import check_choice, check_length, check_rows_agree
from wtacrs.estimators.core.counter_rng import Source, Uniforms
from wtacrs.estimators.core.errors import NoClosedForm
from wtacrs.estimators.core.packing import check_bits, from_bytes, grouped, round_up, spread_steps, to_bytes
from wtacrs.estimators.core.products import double_product, product_dtype, working_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.row_design import RowDesign, RowPlan
from wtacrs.estimators.core.scores import row_norms, sampling_scores
from wtacrs.estimators.core.sizing import check_slots, slots_for
from wtacrs.estimators.core.sourced import RandomChoices, RegeneratingEstimator
from wtacrs.estimators.rows.conditional_poisson import ConditionalPoisson
from wtacrs.estimators.rows.fixed_size import FixedSizeEstimator
from wtacrs.estimators.rows.pivotal import Pivotal
from wtacrs.estimators.rows.row_estimator import MOST_ROWS_FOR_COVARIANCE, coefficient_variance
from wtacrs.estimators.rows.sampford import Sampford
from wtacrs.estimators.rows.systematic import Systematic

DESIGNS: dict[str, type[FixedSizeEstimator]] = {
    "systematic": Systematic,
    "pivotal": Pivotal,
    "conditional_poisson": ConditionalPoisson,
    "sampford": Sampford,
}
_PER_BYTE = 8 // BITS_PER_SLOT
_BLOCK_NUMBERS = 2**25
_COUNT_BITS = 4


class SavedSlots(NamedTuple):
    """What is kept of `x [n, d]`.

    2 bits a number for each of S slots, 2 bytes (fp64: 8) a step for each of min(S, n) rows and group, 4 bits for
    each of the n rows (how many slots it has), and 8 bytes of seed.
    """

    codes: UInt8[Tensor, "s bytes"]
    steps: Float[Tensor, "k groups"]
    counts: UInt8[Tensor, " b"]
    seed: Int64[Tensor, " 1"]
    shape_carrier: Float[Tensor, "n 0"]  # no bytes: carry n, d and the dtype of x
    columns: Float[Tensor, "d 0"]


class SlotPlan(NamedTuple):
    """How many slots every row has, 0 for a row that is not kept, and its weight, 1/π where it is kept."""

    slots: Int[Tensor, " n"]
    weights: Float64[Tensor, " n"]


@register("mixed_precision_rows")
@dataclass(frozen=True, repr=False)
class MixedPrecisionRows(RegeneratingEstimator[SavedSlots]):
    """Heavy rows get many bits, light rows few, the lightest are sampled: `Ĝ = Σ_kept y_i Q_t(x_i/π_i)ᵀ`.

    S slots of 2 bits a number are divided among the rows (see `wtacrs.estimators.composites.slots`). Row i is kept with
    probability π_i by a fixed-size design without replacement, weighed by 1/π_i, and rounded to 4^t levels by
    subtractive dithering (see `wtacrs.estimators.core.packing`) if it has t slots; its code is cut into t digits of
    2 bits, one to a slot. So shapes are fixed by S, whatever the rows.

    Source: sampling with Horvitz–Thompson weights as in `wtacrs.estimators.rows.fixed_size`; bits by the size of what
    they save, the reverse water-filling of rate–distortion theory (Cover & Thomas, "Elements of Information Theory",
    section 10.3.3), here with rows that fall below one slot sampled instead of dropped.

    Mean: the slots are a function of the scores and of the draw of the rows, never of the dither. Given both,
    `E Q_t(x_i/π_i) = x_i/π_i` for every t, and a row is kept with probability π_i: `EĜ = Σ_i π_i Z_i/π_i = G`.

    Variance: with V_i = E‖Q_t(x_i) − x_i‖² = `Σ_j Δ_ij²/12`, `Δ = 2 max/(4^t − 1)`, given the draw the roundings of
    different rows are independent of each other, so

        Var Ĝ = Var_rows + Σ_i V_i ‖y_i‖² / π_i,

    the first term that of the design with these π (up to the rounding of Δ to bf16, which depends on the weight).
    How many slots a row has if it is kept does not depend on the draw.

    Bytes: S·d/4, 2 per kept row and group, n/2 for the numbers of slots, 8 for the seed; no index and no weight is
    stored. MACs: `min(S, n)·d·m`, and the unpacking.

    Args:
        slots: int ≥ 1, the number S of slots, or float in (0, 8], slots per row: 1.0 is 2 bits a number on average.
        design: how rows are drawn, "systematic", "pivotal", "conditional_poisson" or "sampford".
        group: numbers that share a step; None for a whole row.

    >>> import torch
    >>> from wtacrs.estimators import make, saved_bytes
    >>> x = torch.ones(64, 16)
    >>> x[0] = 100.0  # takes three slots, the others share what is left
    >>> estimator = make("mixed_precision_rows(slots=0.5)")
    >>> saved = estimator.compress(x)
    >>> saved_bytes(saved), int(saved.counts[0] & 15)
    (232, 3)
    """

    slots: int | float
    design: str = "systematic"
    group: int | None = None

    published: ClassVar[Published] = Published("this project", unbiased=None)
    traits: ClassVar[Traits] = Traits(
        family="composite", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=False
    )

    def __post_init__(self) -> None:
        check_slots(self.slots, MOST_SLOTS, self.name)
        check_choice("design", self.design, DESIGNS, self.name)
        check_bits(BITS_PER_SLOT, self.group, self.name)

    def slots_for(self, n: int) -> int:
        """S for n rows: at least 1, and no more than n rows can use."""
        return slots_for(self.slots, MOST_SLOTS, n)

    def rows_design(self, n: int) -> FixedSizeEstimator:
        """The design that draws the rows, at the most rows there can be."""
        return DESIGNS[self.design](budget=max(min(self.slots_for(n), n), 1))

    def allot(self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"]) -> Allotment:
        """Inclusion probabilities and slots for checked scores."""
        return allot(scores, peak_to_rms(x, self.group), self.slots_for(x.shape[0]))

    def plan(self, allotment: Allotment, uniforms: Float64[Tensor, " q"]) -> SlotPlan:
        """Slots and weights from `rows_design(n).uniforms(n)` numbers in [0, 1)."""
        target = allotment.target
        n = target.probabilities.shape[0]
        most = min(self.slots_for(n), n)
        certain = ~target.tail & (target.probabilities > 0)
        if n == 0:
            return SlotPlan(allotment.refinements, target.probabilities)
        # of `most` places the last ones are drawn: as many as there are first slots for the tail
        drawn = allotment.rows - target.taken
        place = torch.arange(most, device=uniforms.device)
        tail = self.rows_design(n).draw_tail(target._replace(taken=most - drawn), most, uniforms)
        hit = (place >= most - drawn) & target.tail.any()
        kept = certain.to(torch.int64).index_add(0, tail.rows, hit.to(torch.int64)) > 0
        weights = torch.where(kept, 1.0 / torch.where(kept, tail.probabilities, 1.0), 0.0)
        return SlotPlan(torch.where(kept, 1 + allotment.refinements, 0), weights)

    def keep(self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"], source: RandomChoices) -> SavedSlots:
        """Divide the slots, draw the rows, weigh, round and cut them into digits."""
        x = torch.where(scores[:, None] > 0, x.detach(), 0.0)  # what is left out may hold anything
        design = AllottedRows(self, self.allot(x, scores))
        plan = design.slot_plan(source.plan(design, scores))
        seed, numbers = source.seeded()
        n, d = x.shape
        layout = _layout(plan.slots, self.slots_for(n))
        steps = self._steps(x, plan, layout)
        digits = [
            self._digits(x, plan, layout, steps, columns, numbers)
            for columns in _column_blocks(max(layout.rows.shape[0], layout.owner.shape[0]), d)
        ]
        return SavedSlots(
            codes=torch.cat(digits, dim=1),
            steps=steps,
            counts=to_bytes(plan.slots.to(torch.uint8).unsqueeze(0), _COUNT_BITS).squeeze(0),
            seed=seed,
            shape_carrier=x.new_empty((n, 0)),
            columns=x.new_empty((d, 0)),
        )

    def unlisted(self) -> str | None:
        """As the design that draws the rows."""
        return self.rows_design(1).unlisted()

    def _steps(self, x: Float[Tensor, "n d"], plan: SlotPlan, layout: _Layout) -> Float[Tensor, "k groups"]:
        """Steps of the weighted rows."""
        blocks = layout.rows.split(max(_BLOCK_NUMBERS // max(x.shape[1], 1), 1)) if layout.rows.numel() else ()
        found = [_largest(_weighted(x, plan, rows), self.group) for rows in blocks]
        largest = torch.cat(found) if found else _largest(_weighted(x, plan, layout.rows), self.group)
        steps = largest * (2.0 / _top(layout.slots).to(largest.dtype).clamp(min=1.0)).unsqueeze(1)
        return steps if steps.dtype == torch.float64 else round_up(steps)

    def _digits(
        self,
        x: Float[Tensor, "n d"],
        plan: SlotPlan,
        layout: _Layout,
        steps: Float[Tensor, "k groups"],
        columns: slice,
        source: Uniforms,
    ) -> UInt8[Tensor, "s bytes"]:
        """The packed digits of some columns."""
        places = self._places(x, plan, layout, steps, columns)
        dither = source.uniforms(0, _counters(layout.rows, x.shape[1], columns), lambda: places).to(places.dtype)
        top = _top(layout.slots).unsqueeze(1).to(places.dtype)
        codes = torch.minimum((places + dither).floor().clamp(min=0), top).to(torch.int64)
        digits = (codes.index_select(0, layout.owner) >> (BITS_PER_SLOT * layout.below).unsqueeze(1)) & 3
        return to_bytes(torch.where(layout.used.unsqueeze(1), digits, 0).to(torch.uint8), BITS_PER_SLOT)

    def _places(
        self,
        x: Float[Tensor, "n d"],
        plan: SlotPlan,
        layout: _Layout,
        steps: Float[Tensor, "k groups"],
        columns: slice,
    ) -> Float[Tensor, "k c"]:
        """Where the numbers of some columns lie among the levels."""
        rows = _weighted(x[:, columns], plan, layout.rows)
        step = spread_steps(steps, x.shape[1], self.group)[:, columns].to(rows.dtype)
        top = _top(layout.slots).to(rows.dtype)
        return rows / torch.where(step > 0, step, 1.0) + top.unsqueeze(1) / 2

    def finish(self, saved: SavedSlots, dy: Float[Tensor, "n m"], source: Source) -> Float[Tensor, "m d"]:
        """Put the digits together and sum the pairs; the dither comes from the source once more."""
        check_length(saved.shape_carrier, dy)
        n, d = saved.shape_carrier.shape[0], saved.columns.shape[0]
        dtype = product_dtype(saved.columns, dy)
        working = torch.float32 if dtype == torch.float16 else dtype
        counts = from_bytes(saved.counts.unsqueeze(0), _COUNT_BITS)[0, :n].to(torch.int64)
        layout = _layout(counts, saved.codes.shape[0])
        exact = working_dtype(working)  # sums of digits up to 4^8 are whole numbers
        left = dy.index_select(0, layout.rows).to(working).T
        found = []
        for columns in _column_blocks(max(layout.rows.shape[0], layout.owner.shape[0]), d):
            packed = saved.codes[:, columns.start // _PER_BYTE : -(-columns.stop // _PER_BYTE)]
            digits = from_bytes(packed, BITS_PER_SLOT)[:, : columns.stop - columns.start].to(exact)
            scaled = digits * (4.0**layout.below * layout.used).to(exact).unsqueeze(1)
            codes = scaled.new_zeros((layout.rows.shape[0], scaled.shape[1])).index_add(0, layout.owner, scaled)
            centre = 0.5 - _top(layout.slots).to(exact).unsqueeze(1) / 2
            values = codes + (centre - source.uniforms(0, _counters(layout.rows, d, columns)).to(exact))
            values = values * spread_steps(saved.steps, d, self.group)[:, columns].to(exact)
            found.append(left @ torch.where((layout.slots > 0).unsqueeze(1), values, 0.0).to(working))
        return torch.cat(found, dim=1).to(dtype)

    def macs(self, n: int, d: int, m: int) -> int:
        """`min(S, n)·d·m`, what the draw needs, and `n` per group for the peaks."""
        groups = 1 if self.group is None else -(-d // self.group)
        return min(self.slots_for(n), n) * d * m + self.rows_design(n).draw_macs(n) + n * groups

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """`dYᵀ X` over the rows of positive score, in fp64."""
        check_rows_agree(x, dy)
        return double_product(x, dy, sampling_scores(x, scores) > 0)

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`Var_rows + Σ_i V_i ‖y_i‖² / π_i`, O(n²) memory; looks at the number of rows on the host.

        Raises:
            NoClosedForm: if the design has no joint inclusion probabilities in closed form, or for so many rows that
                their matrix would not fit (see `RowEstimator.variance`).
        """
        check_rows_agree(x, dy)
        checked = sampling_scores(x, scores)
        x = torch.where(checked[:, None] > 0, x, 0.0)
        allotment = self.allot(x, checked)
        p = allotment.target.probabilities
        if bool(allotment.target.tail.any()):
            if x.shape[0] > MOST_ROWS_FOR_COVARIANCE:
                raise NoClosedForm(f"{self!r}: {x.shape[0]} rows need a covariance of n² numbers; use Monte Carlo")
            joint = self.rows_design(x.shape[0]).joint(p, int(allotment.rows))
            p, sampling = joint.probabilities, coefficient_variance(joint.covariance, x, dy)
        else:
            sampling = p.new_zeros(())
        squares = torch.where(p > 0, 1.0 / torch.where(p > 0, p, 1.0), 0.0)
        return sampling + (self.rounding_errors(x, allotment) * row_norms(dy).square() * squares).sum()

    def rounding_errors(self, x: Float[Tensor, "n d"], allotment: Allotment) -> Float64[Tensor, " n"]:
        """`E‖Q_t(x_i) − x_i‖²` of every row that is kept."""
        error = relative_error(peak_to_rms(x, self.group), 1 + allotment.refinements)
        return error * row_norms(x).square()


@dataclass(frozen=True, eq=False)
class AllottedRows(RowDesign):
    """How the rows are drawn once the slots are divided: a slot for every row, of weight 0 where it is not kept.

    Equal if the numbers are: enumeration lists equal designs once.
    """

    estimator: MixedPrecisionRows
    allotment: Allotment

    def uniforms(self, n: int) -> int:
        """Those of the design."""
        return self.estimator.rows_design(n).uniforms(n) if n else 0

    def keys(self, n: int) -> int:
        """Those of the design."""
        return self.estimator.rows_design(n).keys(n)

    def plan(self, scores: Float64[Tensor, " n"], uniforms: Float64[Tensor, " q"]) -> RowPlan:
        """What the estimator does with these numbers."""
        kept = self.estimator.plan(self.allotment, uniforms)
        return RowPlan(torch.arange(scores.shape[0], device=scores.device), kept.weights)

    def cuts(self, scores: Float64[Tensor, " n"], chosen: Float64[Tensor, " j"]) -> Float64[Tensor, " c"]:
        """Those of the design at the number of rows that are kept, with the sizes after rounding for scores."""
        ranking = self.allotment.target.ranking
        sizes = torch.zeros_like(scores).scatter(0, ranking.order, ranking.scores)
        design = replace(self.estimator.rows_design(scores.shape[0]), budget=max(int(self.allotment.rows), 1))
        return design.cuts(sizes, chosen)

    def slot_plan(self, plan: RowPlan) -> SlotPlan:
        """The plan again, with the slots of every row that is kept."""
        return SlotPlan(torch.where(plan.weights > 0, 1 + self.allotment.refinements, 0), plan.weights)

    def _key(self) -> tuple[object, ...]:
        given = self.allotment
        return (
            self.estimator,
            tuple(given.target.probabilities.tolist()),
            int(given.rows),
            tuple(given.refinements.tolist()),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AllottedRows) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


class _Layout(NamedTuple):
    """Where rows and their slots lie: rows side by side in order, the slots of a row side by side."""

    rows: Int[Tensor, " k"]  # index of every kept row; any row beyond the last
    slots: Int[Tensor, " k"]  # how many slots it has; 0 beyond the last
    owner: Int[Tensor, " s"]  # place among the kept rows of the row that a slot belongs to
    below: Int[Tensor, " s"]  # digits of that row in later slots
    used: Shaped[Tensor, " s"]


def _layout(counts: Int[Tensor, " n"], slots: int) -> _Layout:
    n = counts.shape[0]
    most = min(slots, n)
    device = counts.device
    place, slot = torch.arange(most, device=device), torch.arange(slots, device=device)
    rows = torch.searchsorted((counts > 0).cumsum(0), place, right=True).clamp(max=max(n - 1, 0))
    kept = (counts > 0).sum()
    ends = torch.where(place < kept, counts.index_select(0, rows), 0)
    owned = ends.cumsum(0)
    owner = torch.searchsorted(owned, slot, right=True).clamp(max=max(most - 1, 0))
    used = slot < counts.sum()
    below = torch.where(used, owned.index_select(0, owner) - 1 - slot, 0)
    return _Layout(rows, ends, owner, below, used)


def _top(slots: Int[Tensor, " k"]) -> Float64[Tensor, " k"]:
    """The highest of 4^t levels."""
    return 4.0 ** slots.to(torch.float64) - 1.0


def _counters(rows: Int[Tensor, " k"], d: int, columns: slice) -> Int64[Tensor, "k c"]:
    """The address of the dither of some numbers of every kept row: their place in x."""
    places = torch.arange(columns.start, columns.stop, device=rows.device)
    return rows.to(torch.int64).unsqueeze(1) * d + places


def _column_blocks(rows: int, d: int) -> list[slice]:
    """Blocks of columns of whole bytes, so that temporary copies of so many rows stay below 2^25 numbers each."""
    block = max(_BLOCK_NUMBERS // max(rows, 1) // _PER_BYTE, 1) * _PER_BYTE
    return [slice(start, min(start + block, d)) for start in range(0, max(d, 1), block)]


def _weighted(x: Float[Tensor, "n c"], plan: SlotPlan, rows: Int[Tensor, " k"]) -> Float[Tensor, "k c"]:
    """Some kept rows times their weights, in working precision."""
    working = working_dtype(x.dtype)
    return x.index_select(0, rows).to(working) * plan.weights.index_select(0, rows).to(working).unsqueeze(1)


def _largest(rows: Float[Tensor, "k d"], group: int | None) -> Float[Tensor, "k groups"]:
    return grouped(rows.abs(), group).amax(2)
