"""How slots of two bits a number are spread evenly over rows, and where the codes then lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wtacrs.estimators.core.scores import has_values
from wtacrs.estimators.kernels.grid import Grid

MOST_SLOTS = 4
"""Slots of a row: 8 bits."""


class Widths(NamedTuple):
    """How slots of two bits are divided.

    Attributes:
        wanted: rows that the slots were to be divided among.
        rows: rows kept, no more than slots.
        heavy: of these in twice `bits`.
        bits: of the other rows.
    """

    wanted: int
    rows: int
    heavy: int
    bits: int


def widths_for(slots: int, live: int) -> Widths:
    """Slots spread evenly over rows: as many rows as slots in 2 bits, or all in 2, 4 or 8, some in twice as many.

    >>> [tuple(widths_for(slots, 10))[1:] for slots in (7, 10, 14, 20, 27, 40, 50)]
    [(7, 0, 2), (10, 0, 2), (10, 4, 2), (10, 0, 4), (10, 3, 4), (10, 0, 8), (10, 0, 8)]
    """
    if slots < live:
        return Widths(live, slots, 0, 2)
    for cost in (1, 2):
        if slots < 2 * cost * live:
            return Widths(live, live, (slots - cost * live) // cost, 2 * cost)
    return Widths(live, live, 0, 8)


class Part(NamedTuple):
    """Rows of one width, and where they lie in what is stored."""

    heavy: bool
    size: int
    bits: int
    slots: slice  # of shares and steps
    bytes: slice  # of the codes

    def rows_of(self, chosen: Chosen, n: int) -> Int[Tensor, " k"] | None:
        """Their indices in ascending order; None for all rows."""
        if self.size == n:
            return None
        return first_rows(chosen.heavy if self.heavy else chosen.kept & ~chosen.heavy, self.size)


def parts_of(widths: Widths, grid: Grid) -> Iterator[Part]:
    """The heavy rows, and behind them the others; a part without rows is left out."""
    heavy, light = widths.heavy, widths.rows - widths.heavy
    end = heavy * grid.padded * 2 * widths.bits // 8
    if heavy:
        yield Part(True, heavy, 2 * widths.bits, slice(0, heavy), slice(0, end))
    if light:
        last = end + light * grid.padded * widths.bits // 8
        yield Part(False, light, widths.bits, slice(heavy, heavy + light), slice(end, last))


class Chosen(NamedTuple):
    """Which rows are kept, which of them in twice as many bits, and the weights of all if they were drawn."""

    kept: Bool[Tensor, " n"]
    heavy: Bool[Tensor, " n"]
    weights: Float[Tensor, " n"] | None

    def weights_of(self, rows: Int[Tensor, " k"] | None) -> Float[Tensor, " k"] | None:
        """The weights of kept rows in ascending order, 0 for places beyond the last one; None without weights."""
        if self.weights is None or rows is None:
            return self.weights
        there = torch.arange(rows.shape[0], device=rows.device) < self.kept.sum()
        return torch.where(there, self.weights.index_select(0, rows), 0.0)


class Picked(NamedTuple):
    """Some of the slots, and a factor for each."""

    slots: Int[Tensor, " s"]
    factors: Float[Tensor, " s"]

    def within(self, part: slice) -> Picked:
        """Those of a part, counted from its start; on a device all of them, with factors 0 for those of other parts."""
        inside = (self.slots >= part.start) & (self.slots < part.stop)
        if has_values(inside):
            return Picked(self.slots[inside] - part.start, self.factors[inside])
        slots = self.slots.clamp(part.start, part.stop - 1) - part.start
        return Picked(slots, torch.where(inside, self.factors, 0.0))


def first_rows(flags: Bool[Tensor, " n"], count: int) -> Int[Tensor, " k"]:
    """The rows that are flagged, in ascending order; any row beyond the last one."""
    place = torch.arange(count, device=flags.device)
    return torch.searchsorted(flags.cumsum(0), place, right=True).clamp(max=flags.shape[0] - 1)
