"""Right and wrong masks in many architectures, in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import masks as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Details, Named, Paragraph, Section, Table
from wtacrs.validation.records.masks import MasksResult, masks_sentence


def section(results: Sequence[Named[MasksResult]]) -> Section:
    """What all rows say in a sentence, the figure, and the rows folded away."""
    section = Section("Whatever the mask says")
    for _, result in section.each(results):
        section.add(Paragraph(f"{masks_sentence(result)}."))
        section.draw(
            partial(figure.build, result),
            "Architectures under right and wrong masks",
            "Left: what the mean would be along the gradient, in the layer where it is least, if rows called padding "
            "were never drawn. Right: layers that still use a mask after one step, since no gradient was found there, of "
            "those that had one. L, R: where padding stands. Grey: no finite loss, or no mask that fits.",
            finding=partial(findings.of_masks, result),
        )
        section.add(Details("All cases", [_rows(result)]))
    return section


def _rows(result: MasksResult) -> Table:
    head = ["architecture", "padding", "mask", "reads padding", "layers", "masked", "kept", "‖dY‖² at padding", "bias",
            "bias after", "with a score of 0", "worst layer"]  # fmt: skip
    rows: list[list[Cell]] = [
        [row.architecture, row.side, row.condition, row.failed, *[None] * 8]
        if row.failed
        else [row.architecture, row.side, row.condition, "yes" if row.reads_padding else "no", str(row.layers),
              str(row.masked), str(row.kept), row.share, row.bias, row.bias_after, row.score_zero,
              row.score_zero_layer]
        for row in result.rows
    ]  # fmt: skip
    return Table(head, rows, numeric=range(4, len(head)))
