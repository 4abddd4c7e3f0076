"""Metrics of a model as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from wtacrs.validation.records.evaluation import Evaluation


def evaluation_table(found: Evaluation) -> Table:
    """Every metric, the main one first with what the most frequent answer scores."""
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("majority", justify="right")
    for number, (name, value) in enumerate(found.metrics.items()):
        table.add_row(name, f"{value:.4f}", "" if number else f"{found.majority:.4f}")
    return table
