"""Ways to take a training step as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from wtacrs.validation.records.front import FrontResult, FrontRow, front_sentences
from wtacrs.validation.records.units import megabytes


def front_table(result: FrontResult) -> Table:
    """A row for each way, shares of the first one; below, what is not beaten and what each part saves."""
    first = result.rows[0]
    table = Table(title=front_title(result), title_justify="left")
    table.add_column("way", overflow="fold")
    for column in ("kept MB", "of the first", "peak", "seconds", "time", "added noise / minibatch's"):
        table.add_column(column, justify="right")
    for row in result.rows:
        peak = "–" if row.peak is None or first.peak is None else f"{row.peak / first.peak:.2f}"
        table.add_row(
            row.way.name,
            megabytes(row.kept),
            f"{row.kept / first.kept:.3f}",
            peak,
            f"{row.seconds:.2f}",
            f"{row.ratio:.2f}",
            _noise(row),
        )
    table.caption = "\n".join(front_sentences(result))
    table.caption_justify = "left"
    return table


def front_title(result: FrontResult) -> str:
    """What was measured."""
    return (
        f"A training step of {result.model}, {result.layers} layers, {result.batch_size} × {result.tokens} tokens, "
        f"{result.rows[0].way.precision}, dropout {result.dropout:g}, {result.stamp.device}, "
        f"{result.stamp.threads} threads, median of {result.rounds}"
    )


def _noise(row: FrontRow) -> str:
    return "–" if row.noise is None else "0" if row.noise == 0 else f"{row.noise:.2g}"
