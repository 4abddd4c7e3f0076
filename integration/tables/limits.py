"""The limit of memory reduction as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from wtacrs.validation.records.limits import LimitBatch, LimitsResult
from wtacrs.validation.records.units import gigabytes


def limits_tables(result: LimitsResult) -> list[Table]:
    """Limits by what grows, the largest batches, and the closed form beside the simulated step."""
    return [limits_table(result), batches_table(result), *([checks_table(result)] if result.checks else [])]


def limits_table(result: LimitsResult) -> Table:
    """Peak of a stock step over that of a way, at the ends of every curve and without end."""
    table = Table(
        title=f"Peak of a stock step over that of a way: {result.base}, {result.batch_size} × {result.length} / "
        f"{result.target_length}, {result.rows:.0%} of rows (computed)",
        title_justify="left",
    )
    for column in ("grows", "way", "from", "ratio", "to", "ratio", "limit"):
        table.add_column(column, justify="left" if column in ("grows", "way") else "right", overflow="fold")
    for curve in result.curves:
        limit = "none" if curve.limit is None else f"{curve.limit:.2f}"
        first, last = (f"{curve.sizes[i]:,}" for i in (0, -1))
        table.add_row(
            curve.grows, curve.way, first, f"{curve.ratios[0]:.2f}", last, f"{curve.ratios[-1]:.2f}", limit
        )
    return table


def batches_table(result: LimitsResult) -> Table:
    """The largest batch in every memory, and the throughput that follows."""
    table = Table(
        title="Largest batch (computed); throughput over stock's, each at its largest batch: from the time of a step as "
        "it was measured, and the update that a larger batch pays less often (computed)",
        title_justify="left",
    )
    for column in ("model", "memory", "way", "batch", "× stock", "time, measured", "amortised", "throughput"):
        table.add_column(column, justify="left" if column in ("model", "way") else "right", overflow="fold")
    stock: LimitBatch | None = None
    for one in result.batches:
        stock = one if one.way == "stock" else stock
        more = "–" if stock is None or not stock.batch else f"{one.batch / stock.batch:.1f}"
        numbers = ("–" if value is None else f"{value:.2f}" for value in (one.time, one.amortised, one.throughput))
        table.add_row(one.model, f"{gigabytes(one.memory)} GB", one.way, f"{one.batch:,}", more, *numbers)
    return table


def checks_table(result: LimitsResult) -> Table:
    """Kept bytes and peak of the closed form beside those of the simulated step."""
    table = Table(title="The closed form beside the simulated step of the real code", title_justify="left")
    for column in ("model", "way", "kept, GB", "closed form", "peak, GB", "closed form"):
        table.add_column(column, justify="left" if column in ("model", "way") else "right", overflow="fold")
    for check in result.checks:
        table.add_row(
            check.model,
            check.way,
            gigabytes(check.simulated_kept),
            f"{check.kept_ratio:.1%}",
            gigabytes(check.simulated_peak),
            f"{check.peak_ratio:.1%}",
        )
    return table
