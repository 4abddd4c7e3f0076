"""`wtacrs evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import DeviceOption, device_from
from wtacrs.integration.cli.output import show
from wtacrs.integration.cli.subject_options import subject_from, with_given_subject

ModelFolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of a run, whose best/ is taken, or of a model.")
]
EvalBatchSizeOption = Annotated[int, typer.Option(min=1, help="Examples at a time.")]
RunMaxLengthOption = Annotated[
    int | None, typer.Option(min=2, help="Longest input, in tokens. Default: as in training, or 128.")
]


@app.command(dry=False)
@with_given_subject(without=("train_limit", "model", "tokenizer", "max_target_length"))
def evaluate(
    folder: ModelFolderArgument,
    given: dict[str, Any],
    batch_size: EvalBatchSizeOption = 64,
    max_length: RunMaxLengthOption = None,
    device: DeviceOption = "cpu",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the metrics as JSON too.")] = None,
) -> None:
    """Evaluate a fine-tuned model on dev examples: those of its run, other files, or a named task.

    A run knows its files and columns: --dev FILE alone evaluates on another file. Classes are those of --train.
    """
    from wtacrs.integration.studies.evaluate import evaluate_study
    from wtacrs.integration.tables.evaluate import evaluation_table
    from wtacrs.validation.records.results import write_text

    whole = "task" in given or {"train", "text"} <= given.keys()
    found = evaluate_study(
        folder,
        subject_from(given) if whole else None,
        changed={} if whole else given,
        max_length=max_length,
        batch_size=batch_size,
        device=device_from(device),
    )
    title = f"{found.model} on {found.task}: {found.dev_size:,} dev examples"
    if out is not None:
        write_text(out, found.model_dump_json(indent=2) + "\n")
    files = () if out is None else (out,)
    show(found.model_dump(mode="json"), tables=(title, evaluation_table(found)), files=files)
