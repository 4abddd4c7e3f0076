"""Kinds of scores in training as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from wtacrs.validation.records.scores import TrainingScoresResult


def scores_tables(result: TrainingScoresResult) -> Sequence[Table]:
    """Variance over that under row norms by kind and budget, and what each kind keeps."""
    budgets = list(dict.fromkeys(row.budget for row in result.rows))
    rows = {(row.scores, row.budget): row for row in result.rows}
    table = Table(
        title=f"Variance of {result.estimator} over that under row norms; {result.model}, {result.task}",
        title_justify="left",
    )
    table.add_column("scores")
    for budget in budgets:
        table.add_column(f"budget {budget:g}", justify="right")
        table.add_column("quartiles", justify="right")
    table.add_column("memory, bytes", justify="right")
    table.add_column("rows, bytes", justify="right")
    kept = {entry.scores: entry for entry in result.bytes}
    for kind in dict.fromkeys(row.scores for row in result.rows):
        cells = [
            text
            for row in (rows[kind, budget] for budget in budgets)
            for text in (f"{row.variance:.3f}", f"{row.low:.2f} – {row.high:.2f}")
        ]
        entry = kept.get(kind)
        sizes = ["–", "–"] if entry is None else [f"{entry.memory:,}", f"{entry.rows:,}"]
        table.add_row(kind, *cells, *sizes)
    table.caption = (
        f"median of {result.rows[0].layers} layers, of each the median of {result.batches} batches; after {result.after} "
        f"exact steps and {result.steps} that scores learned from; rows: kept of a batch until its backward pass"
    )
    table.caption_justify = "left"
    return [table]
