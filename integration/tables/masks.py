"""Right and wrong masks in many architectures as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from wtacrs.validation.records.masks import MasksResult, masks_sentence


def masks_table(result: MasksResult) -> Table:
    """A row per architecture, padding side and mask."""
    table = Table(title=f"{result.estimator}: {masks_sentence(result)}", title_justify="left")
    numeric = ("layers", "masked", "kept", "‖dY‖² at padding", "bias", "bias after", "score 0", "worst layer")
    for column in ("architecture", "padding", "mask", "reads padding", *numeric):
        table.add_column(column, justify="right" if column in numeric else "left")
    for row in result.rows:
        if row.failed:
            table.add_row(row.architecture, row.side, row.condition, row.failed)
            continue
        table.add_row(
            row.architecture,
            row.side,
            row.condition,
            "yes" if row.reads_padding else "no",
            str(row.layers),
            str(row.masked),
            str(row.kept),
            f"{row.share:.2g}",
            f"{row.bias:.1g}",
            f"{row.bias_after:.1g}",
            f"{row.score_zero:.2f}",
            f"{row.score_zero_layer:.2f}",
        )
    return table
