"""`wtacrs study scores`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.integration.cli.options import (
    BatchSizeOption,
    BudgetsOption,
    DataOption,
    LearningRateOption,
    MaxLengthOption,
    ModelOption,
    OutOption,
    SeedOption,
    StepsOption,
    TaskOption,
    TokenizerOption,
    TrainLimitOption,
    budgets_from,
)
from wtacrs.integration.cli.output import show
from wtacrs.integration.cli.study import study
from wtacrs.integration.training.defaults import NEW_MODEL_LEARNING_RATE


@study.command()
def scores(
    estimator: Annotated[
        str, typer.Option(metavar="SPEC", help="Unbiased, with a closed form of its variance; without a budget.")
    ] = "wta_crs",
    budget: BudgetsOption = None,
    task: TaskOption = "docstrings",
    data: DataOption = None,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    after: Annotated[int, typer.Option(min=0, help="Steps of exact training at first.")] = 300,
    steps: StepsOption = 120,
    batches: Annotated[int, typer.Option(min=1, help="Batches that are measured after these steps.")] = 5,
    batch_size: BatchSizeOption = 32,
    lr: LearningRateOption = NEW_MODEL_LEARNING_RATE,
    max_length: MaxLengthOption = 48,
    train_limit: TrainLimitOption = None,
    out: OutOption = Path("runs/scores"),
    seed: SeedOption = 0,
) -> None:
    """Measure what every kind of scores in training is worth: its variance over that of row norms, on batches to come.

    --steps are those that scores learn from, after the exact ones. Without --budget: at 0.1 and 0.3.
    """
    from wtacrs.integration.models.opening import Subject
    from wtacrs.integration.studies.scores import scores_study
    from wtacrs.validation.files import check_folder

    check_folder("out", out)
    result = scores_study(
        Subject(task, data, model, tokenizer, train_limit),
        estimator,
        budgets_from(budget, (0.1, 0.3)),
        out,
        after=after,
        steps=steps,
        batches=batches,
        batch_size=batch_size,
        lr=lr,
        max_length=max_length,
        seed=seed,
        progress=True,
    )
    show(result, files=(out / "scores.json",))
