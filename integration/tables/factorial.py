"""A factorial experiment as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from wtacrs.validation.records.factorial import FactorialResult


def factorial_tables(result: FactorialResult) -> list[Table]:
    """Every combination, then effects and interactions."""
    return [cells_table(result), contrasts_table(result)]


def cells_table(result: FactorialResult) -> Table:
    """Mean metric of every combination of levels."""
    seeds = len({run.seed for run in result.runs})
    table = Table(
        title=f"{result.config['name']}: {result.metric} over {seeds} seeds, {result.dev_size:,} dev examples",
        title_justify="left",
    )
    for name in result.factors:
        table.add_column(name)
    for column in (result.metric, "± SE"):
        table.add_column(column, justify="right")
    for cell in result.cells:
        error = "–" if cell.error is None else f"{cell.error:.4f}"
        table.add_row(*cell.levels.values(), f"{cell.mean:.4f}", error)
    return table


def contrasts_table(result: FactorialResult) -> Table:
    """Effects of the first factor, and their interactions with the others."""
    config = result.config
    table = Table(
        title=f"Effects of {next(iter(result.factors))}; margin {config['margin']:g}, level {config['level']:g} (Holm)",
        title_justify="left",
    )
    interval = f"{1 - 2 * config['level']:.0%} interval"
    left = ("contrast", "of", "factor", "level", "verdict")
    for column in (
        "contrast",
        "of",
        "factor",
        "level",
        "difference",
        interval,
        "p differs",
        "p within",
        "verdict",
    ):
        table.add_column(column, justify="left" if column in left else "right", overflow="fold")
    for one in result.contrasts:
        table.add_row(
            one.kind,
            one.treatment,
            one.factor or "all",
            one.at or "–",
            f"{one.difference:+.4f}",
            f"\\[{one.low:+.4f}, {one.high:+.4f}]",
            f"{one.different:.3g}",
            f"{one.within:.3g}",
            one.verdict,
        )
    return table
