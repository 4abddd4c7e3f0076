"""Fine-tuning runs in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import training as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Code, Details, Named, Paragraph, Section, Table
from wtacrs.validation.records.memory import megabytes
from wtacrs.validation.records.receipt import receipt_lines
from wtacrs.validation.records.training import TrainingResult
from wtacrs.validation.records.units import model_name
from wtacrs.validation.summaries.training import cost_lines

_HEAD = (
    "task", "model", "estimator", "seed", "epochs", "steps", "train", "dev", "metric", "majority", "best", "final",
    "seconds", "layers", "MB kept", "by stock linear layers", "file",
)  # fmt: skip


def section(results: Sequence[Named[TrainingResult]]) -> Section:
    """Table of all runs; curves per task, model and metric."""
    section = Section("Training")
    numeric = [place for place, title in enumerate(_HEAD) if place > 2 and title not in ("metric", "file")]
    caption = (
        "Scores on dev, training seconds, converted layers, and what a step keeps for its backward pass beside what "
        "stock linear layers would keep there, which keep their inputs, with the same lean neighbours if any"
    )
    section.add(Table(_HEAD, [_row(file, run) for file, run in results], numeric=numeric, caption=caption))
    for file, run in results:
        for line in cost_lines(run):
            section.add(Paragraph(f"{_called(file, run)}: {line}.", soft=True))
    receipts = [
        Paragraph(f"{_called(file, run)}, {'; '.join(receipt_lines(run.receipt))}.", soft=True)
        for file, run in results
        if run.receipt is not None and run.receipt.layers
    ]
    if receipts:
        section.add(Details("Receipts: what was promised, what is kept, and who holds the rest", receipts))
    groups: dict[tuple[str, str, str], list[TrainingResult]] = {}
    for _, run in results:
        groups.setdefault((run.task, run.model, run.metric), []).append(run)
    for (task, model, metric), group in groups.items():
        caption = (
            f"Left: {metric} on the held-out examples of {task}; a run has learnt something where it is above the "
            "dashed line, the score of always answering with the most frequent class. Right: training loss. An "
            "estimator does no harm where its line stays with that of exact."
        )
        section.draw(
            partial(figure.build, group),
            f"Training curves, {model_name(model)} on {task}",
            caption,
            finding=partial(findings.of_training, group),
        )
    return section


def _called(file: str, run: TrainingResult) -> str:
    """Runs that differ in their lengths alone have one method and one task: the file tells them apart."""
    return f"{run.method} on {run.task} ({file})"


def _row(file: str, run: TrainingResult) -> list[Cell]:
    last = run.history[-1] if run.history else None
    length = ["–", "–"] if last is None else [f"{last.epoch:.3g}", f"{last.step:,}"]
    seconds = f"{run.history[-1].seconds:,.1f}" if run.history else "–"
    seed = "–" if run.stamp.seed is None else str(run.stamp.seed)
    return [
        run.task, model_name(run.model), Code(run.method), seed, *length, f"{run.train_size:,}",
        f"{run.dev_size:,}", run.metric,
        f"{run.majority:.3f}", f"{run.best:.3f}", f"{run.final:.3f}", seconds, f"{run.converted}",
        *("–" if size is None else megabytes(size) for size in (run.kept_bytes, run.exact_bytes)),
        Code(file),
    ]  # fmt: skip
