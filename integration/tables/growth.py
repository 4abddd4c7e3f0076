"""Trends of models of many sizes as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from wtacrs.figures.plots.growth import NAMES, QUANTITIES
from wtacrs.validation.records.growth import GrowthResult


def growth_tables(result: GrowthResult) -> list[Table]:
    """By which factor every quantity changes, per doubling of width, depth and rows, and per nat of loss."""
    table = Table(
        title=f"Factor per doubling of width, depth or rows, or per nat that the loss falls; {1 - result.level:.0%} "
        "interval, p adjusted over the quantities (Holm)",
        title_justify="left",
    )
    for column in ("model", "grows", "at", "quantity", "factor", "interval", "p", "verdict"):
        table.add_column(
            column, justify="right" if column in ("factor", "interval", "p") else "left", overflow="fold"
        )
    for one in result.trends:
        table.add_row(
            NAMES[one.family],
            one.axis,
            one.condition,
            QUANTITIES.get(one.quantity, one.quantity),
            f"{one.factor:.3g}",
            f"{one.low:.3g} – {one.high:.3g}",
            f"{one.p_value:.2g}",
            one.verdict,
        )
    return [table]
