"""The limit of memory reduction in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import limits as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Named, Section, Table, percent
from wtacrs.validation.records.limits import LimitBatch, LimitsResult
from wtacrs.validation.records.units import gigabytes


def section(results: Sequence[Named[LimitsResult]]) -> Section:
    """The curves, the largest batches, and how close the closed form is to the simulated step."""
    section = Section("The limit of memory reduction")
    for _, result in section.each(results):
        section.draw(
            partial(figure.build, result),
            "Peak of a stock step over that of other ways",
            "Computed in closed form. One size grows, all others stay; ticks at the right edge are limits, a line "
            "without one grows without bound.",
            finding=partial(findings.of_limits, result),
        )
        if result.batches:
            section.add(_batches(result))
        if result.checks:
            section.add(_checks(result))
    return section


def _batches(result: LimitsResult) -> Table:
    ways = list(dict.fromkeys(one.way for one in result.batches))
    groups: dict[tuple[str, int], dict[str, LimitBatch]] = {}
    for one in result.batches:
        groups.setdefault((one.model, one.memory), {})[one.way] = one
    rows: list[list[Cell]] = [
        [model, f"{gigabytes(memory)} GB", *(_batch(found[way], found["stock"]) for way in ways)]
        for (model, memory), found in groups.items()
    ]
    head = ["model", "memory", *(figure.NAMES.get(way, way) for way in ways)]
    source = "" if result.times_of is None else f" of {result.times_of}"
    told = (
        "Largest batch (computed), and examples per second over stock's, each at its largest batch: from the time of a "
        f"step as it was measured{source}, and from the update that a larger batch pays less often (computed)."
    )
    return Table(head, rows, numeric=list(range(1, len(head))), caption=told)


def _batch(found: LimitBatch, stock: LimitBatch) -> str:
    more = f" ({found.batch / stock.batch:.1f}×)" if stock.batch and found.way != "stock" else ""
    speed = "" if found.throughput is None else f", {found.throughput:.2f}× speed"
    return f"{found.batch:,}{more}{speed}"


def _checks(result: LimitsResult) -> Table:
    rows: list[list[Cell]] = [
        [
            check.model,
            figure.NAMES.get(check.way, check.way),
            gigabytes(check.simulated_kept),
            percent(check.kept_ratio),
            gigabytes(check.simulated_peak),
            percent(check.peak_ratio),
        ]
        for check in result.checks
    ]
    head = ["model", "way", "kept, simulated, GB", "closed form", "peak, simulated, GB", "closed form"]
    return Table(head, rows, numeric=[2, 3, 4, 5], caption="The closed form beside the step of the real code")
