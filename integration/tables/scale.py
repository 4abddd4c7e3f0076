"""Time and memory of a layer of full size as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from wtacrs.validation.records.scale import ScaleResult


def scale_table(result: ScaleResult) -> Table:
    """A row per estimator: seconds and peak memory of its moments on one layer."""
    table = Table(
        title="Moments of one layer of full size: wall-clock seconds and peak memory", title_justify="left"
    )
    for column in (
        "estimator",
        "n",
        "d",
        "m",
        "dtype",
        "found by",
        "variance",
        "seconds",
        "peak GiB",
        "on the device",
    ):
        table.add_column(
            column, justify="left" if column in ("estimator", "dtype", "found by") else "right", overflow="fold"
        )
    for row in result.rows:
        table.add_row(
            row.estimator,
            f"{row.n:,}",
            f"{row.d:,}",
            f"{row.m:,}",
            row.dtype,
            row.method if row.draws is None else f"{row.method}, {row.draws} draws",
            f"{row.variance:.3g}",
            f"{row.seconds:.1f}",
            gibibytes(row.process_bytes),
            "–" if row.device_bytes is None else gibibytes(row.device_bytes),
        )
    return table


def gibibytes(size: int) -> str:
    """Bytes in units of 2³⁰.

    >>> gibibytes(3 * 2**29)
    '1.5'
    """
    return f"{size / 2**30:.1f}"
