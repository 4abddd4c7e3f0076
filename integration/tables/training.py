"""Fine-tuning runs as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from wtacrs.validation.records.memory import megabytes
from wtacrs.validation.records.training import TrainingResult


def training_table(results: Sequence[TrainingResult]) -> Table:
    """Runs side by side, each with what a step keeps for its backward pass, and what exact layers would keep."""
    table = Table(title="Fine-tuning", title_justify="left")
    for column in (
        "estimator",
        "kept MB",
        "exact MB",
        "task",
        "train",
        "dev",
        "metric",
        "majority",
        "best",
        "final",
        "training seconds",
    ):
        table.add_column(column, justify="left" if column in ("estimator", "task", "metric") else "right")
    for run in results:
        table.add_row(
            run.method,
            _megabytes(run.kept_bytes),
            _megabytes(run.exact_bytes),
            run.task,
            f"{run.train_size:,}",
            f"{run.dev_size:,}",
            run.metric,
            f"{run.majority:.3f}",
            f"{run.best:.3f}",
            f"{run.final:.3f}",
            f"{run.history[-1].seconds:.0f}",
        )
    table.caption = "\n".join(line for run in results if (line := _nothing_saved(run)) is not None) or None
    table.caption_justify = "left"
    return table


def _nothing_saved(run: TrainingResult) -> str | None:
    """A line for a run whose conversion saves no memory."""
    if run.estimator == "exact" or run.kept_bytes is None or run.exact_bytes is None:
        return None
    if run.converted == 0:
        return f"{run.method}: no converted layer trains by estimates, nothing is saved"
    if run.kept_bytes < run.exact_bytes:
        return None
    more = megabytes(run.kept_bytes - run.exact_bytes)
    beside = "stock layers" if run.lean is None else "exact layers beside the same lean neighbours"
    return f"{run.method}: sampling saves nothing; a step keeps {more} MB more than with {beside}"


def _megabytes(size: int | None) -> str:
    return "–" if size is None else megabytes(size)
