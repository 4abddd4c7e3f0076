"""A pre-training run as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from wtacrs.validation.records.pretrain import PretrainingResult


def pretraining_table(result: PretrainingResult) -> Table:
    """What was trained, for how long, and the validation loss before and after."""
    table = Table(title="Pre-training by span corruption; losses in nats per target token", title_justify="left")
    head = ("estimator", "size", "parameters", "steps", "tokens", "seconds", "validation loss before", "after")
    for column in head:
        table.add_column(column, justify="left" if column in ("estimator", "size") else "right")
    table.add_row(
        result.estimator,
        result.size,
        f"{result.parameters:,}",
        f"{result.steps:,}",
        f"{result.tokens:,}",
        f"{result.seconds:.0f}",
        f"{result.valid_before:.3f}",
        f"{result.valid_after:.3f}",
    )
    return table
