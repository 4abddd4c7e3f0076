"""Choices of the number of winners |C| as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.table import Table

from wtacrs.validation.records.sweep import SweepResult
from wtacrs.validation.summaries.sweep import choice_summaries


def sweep_table(result: SweepResult) -> Table:
    """|C| by rule and what each costs over the best |C|, by file, scores and budget."""
    table = Table(
        title="|C| of WTA-CRS: median |C|/k, and variance over that of the best |C| (median, worst)",
        title_justify="left",
    )
    columns = (
        "captures",
        "scores",
        "budget",
        "cases",
        "paper",
        "cost",
        "worst",
        "optimal",
        "cost",
        "worst",
        "best",
    )
    for column in columns:
        table.add_column(column, justify="left" if column in ("captures", "scores") else "right", overflow="fold")
    for entry in choice_summaries(result.sweeps):
        table.add_row(
            entry.captures,
            entry.scores,
            f"{entry.budget:g}",
            str(entry.cases),
            f"{entry.paper_fraction:.2f}",
            *_costs(entry.paper_regrets),
            f"{entry.optimal_fraction:.2f}",
            *_costs(entry.optimal_regrets),
            "–" if entry.best_fraction is None else f"{entry.best_fraction:.2f}",
        )
    return table


def _costs(regrets: Sequence[float]) -> tuple[str, str]:
    return (f"{median(regrets):.3f}×", f"{max(regrets):.3f}×") if regrets else ("–", "–")
