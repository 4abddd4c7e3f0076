"""Pre-training runs in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import pretrain as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Code, Named, Paragraph, Section, Table
from wtacrs.validation.records.pretrain import PretrainingResult

_HEAD = (
    "estimator", "size", "seed", "parameters", "steps", "tokens", "seconds", "validation loss before", "after",
)  # fmt: skip


def section(results: Sequence[Named[PretrainingResult]]) -> Section:
    """What pre-training did to the validation loss, the runs as a table, and their losses over the steps."""
    section = Section("Pre-training")
    rows: list[list[Cell]] = []
    for _, run in results:
        section.add(
            Paragraph(
                f"{run.estimator}: {run.tokens:,} tokens of span corruption take the validation loss from "
                f"{run.valid_before:.3f} to {run.valid_after:.3f} nats per target token."
            )
        )
        seed = "–" if run.stamp.seed is None else str(run.stamp.seed)
        rows.append([
            Code(run.estimator), run.size, seed, f"{run.parameters:,}", f"{run.steps:,}", f"{run.tokens:,}",
            f"{run.seconds:,.0f}", f"{run.valid_before:.3f}", f"{run.valid_after:.3f}",
        ])  # fmt: skip
    section.add(Table(_HEAD, rows, numeric=range(2, len(_HEAD))))
    section.draw(
        partial(figure.build, [run for _, run in results]),
        "Loss of pre-training",
        "Training loss over the steps of every run, and its validation loss before and after. An estimator does no harm "
        "where its line stays with that of exact.",
        finding=partial(findings.of_pretraining, [run for _, run in results]),
    )
    return section
