"""`wtacrs study scores`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wtacrs.integration.cli.options import (
    BatchSizeOption,
    BudgetsOption,
    LearningRateOption,
    MaxLengthOption,
    OutOption,
    SeedOption,
    StepsOption,
    budgets_from,
)
from wtacrs.integration.cli.output import show
from wtacrs.integration.cli.study import study
from wtacrs.integration.cli.subject_options import with_subject
from wtacrs.integration.training.defaults import NEW_MODEL_LEARNING_RATE

if TYPE_CHECKING:
    from wtacrs.integration.models.opening import Subject


@study.command()
@with_subject(without=("dev_limit",))
def scores(
    estimator: Annotated[
        str, typer.Option(metavar="SPEC", help="Unbiased, with a closed form of its variance; without a budget.")
    ] = "wta_crs",
    budget: BudgetsOption = None,
    *,
    subject: Subject,
    after: Annotated[int, typer.Option(min=0, help="Steps of exact training at first.")] = 300,
    steps: StepsOption = 120,
    batches: Annotated[int, typer.Option(min=1, help="Batches that are measured after these steps.")] = 5,
    batch_size: BatchSizeOption = 32,
    lr: LearningRateOption = NEW_MODEL_LEARNING_RATE,
    max_length: MaxLengthOption = 48,
    out: OutOption = Path("runs/scores"),
    seed: SeedOption = 0,
) -> None:
    """Measure what every kind of scores in training is worth: its variance over that of row norms, on batches to come.

    --steps are those that scores learn from, after the exact ones. Without --budget: at 0.1 and 0.3.
    """
    from wtacrs.integration.studies.scores import scores_study
    from wtacrs.validation.files import check_folder

    check_folder("out", out)
    result = scores_study(
        subject,
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
