"""Time and memory of a layer of full size in the report."""

from __future__ import annotations

from collections.abc import Sequence

from wtacrs.figures.sections.blocks import METHODS, Cell, Code, Named, Paragraph, Section, Table, number
from wtacrs.validation.records.scale import ScaleResult, ScaleRow

_HEAD = (
    "estimator", "n", "d", "m", "dtype", "found by", "variance", "seconds", "peak of the process, GiB",
    "peak on the device, GiB",
)  # fmt: skip


def section(results: Sequence[Named[ScaleResult]]) -> Section:
    """The slowest in a sentence, and every estimator as a table."""
    section = Section("A layer of full size")
    for _, result in section.each(results):
        if result.rows:
            slowest = max(result.rows, key=lambda row: row.seconds)
            section.add(
                Paragraph(
                    f"Bias and variance on one layer are found in at most {slowest.seconds:,.0f} s "
                    f"({slowest.estimator}) and {_gibibytes(max(row.process_bytes for row in result.rows))} GiB."
                )
            )
        section.add(Table(_HEAD, [_row(row) for row in result.rows], numeric=(1, 2, 3, 6, 7, 8, 9)))
    return section


def _row(row: ScaleRow) -> list[Cell]:
    method = METHODS[row.method] + (f", {row.draws:,} draws" if row.draws is not None else "")
    device = "–" if row.device_bytes is None else _gibibytes(row.device_bytes)
    return [
        Code(row.estimator), f"{row.n:,}", f"{row.d:,}", f"{row.m:,}", row.dtype, method, number(row.variance),
        f"{row.seconds:,.1f}", _gibibytes(row.process_bytes), device,
    ]  # fmt: skip


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.1f}"
