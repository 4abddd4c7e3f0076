"""Fine-tuning runs as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from wtacrs.validation.records.training import TrainingResult


def training_table(results: Sequence[TrainingResult]) -> Table:
    """Runs side by side."""
    table = Table(title="Fine-tuning", title_justify="left")
    for column in ("estimator", "task", "train", "dev", "metric", "majority", "best", "final", "training seconds"):
        table.add_column(column, justify="left" if column in ("estimator", "task", "metric") else "right")
    for run in results:
        table.add_row(
            run.estimator,
            run.task,
            f"{run.train_size:,}",
            f"{run.dev_size:,}",
            run.metric,
            f"{run.majority:.3f}",
            f"{run.best:.3f}",
            f"{run.final:.3f}",
            f"{run.history[-1].seconds:.0f}",
        )
    return table
