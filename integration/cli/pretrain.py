"""`wtacrs pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import (
    BatchSizeOption,
    EstimatorOption,
    LearningRateOption,
    MaxLengthOption,
    PrecisionOption,
    ReplaceOption,
    ResumeOption,
    RunOption,
    SaveEveryOption,
    SeedOption,
    StepsOption,
    spec_from,
)
from wtacrs.integration.cli.output import show
from wtacrs.integration.cli.subject_options import TrainLimitOption
from wtacrs.integration.training.defaults import NEW_MODEL_LEARNING_RATE


@app.command()
def pretrain(
    corpus: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder with *train*.txt[.gz] and *valid*.txt[.gz].")
    ],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR", help="A vocabulary with sentinels; google-t5/t5-small's if none is said."
        ),
    ] = None,
    vocabulary: Annotated[
        int | None, typer.Option(help="Make a vocabulary of so many pieces from the text instead.")
    ] = None,
    estimator: EstimatorOption = "exact",
    size: Annotated[str, typer.Option(help="demo, mini or small (t5-small's).")] = "demo",
    steps: StepsOption = 1_000,
    batch_size: BatchSizeOption = 32,
    lr: LearningRateOption = NEW_MODEL_LEARNING_RATE,
    max_length: MaxLengthOption = 128,
    precision: PrecisionOption = "fp32",
    save_every: SaveEveryOption = 500,
    train_limit: TrainLimitOption = None,
    out: RunOption = Path("runs/pretrain"),
    resume: ResumeOption = False,
    overwrite: ReplaceOption = False,
    seed: SeedOption = 0,
) -> None:
    """Pre-train a new T5 by span corruption on a text, exactly or with an estimated weight gradient.

    An example is a piece of the text, so long that its corrupted input has --max-length tokens.
    """
    from wtacrs.integration.training.pretrain import PretrainingConfig
    from wtacrs.integration.training.pretrain import pretrain as run

    options: dict[str, Any] = {
        "estimator": spec_from(estimator),
        "size": size,
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "max_length": max_length,
        "precision": precision,
        "save_every": save_every,
        "train_limit": train_limit,
        "vocabulary": vocabulary,
        "seed": seed,
    }
    if tokenizer is None and vocabulary is None:
        tokenizer = "google-t5/t5-small"
    result = run(
        PretrainingConfig(**options), corpus, tokenizer, out, resume=resume, overwrite=overwrite, progress=True
    )
    told = (
        f"{result.parameters:,} parameters, {result.tokens:,} tokens in {result.seconds:.0f} s: validation loss "
        f"{result.valid_before:.3f} → {result.valid_after:.3f} nats per token ({result.estimator})"
    )
    show(result, tables=(), lines=(told,), files=(out / "result.json", out / "model"))
