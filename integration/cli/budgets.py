"""`wtacrs study budgets`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wtacrs.integration.cli.options import (
    AnewOption,
    BatchSizeOption,
    BudgetsOption,
    LearningRateOption,
    MaxLengthOption,
    OutOption,
    SaveEveryOption,
    SeedOption,
    StepsOption,
    budgets_from,
)
from wtacrs.integration.cli.output import show, warn_skipped
from wtacrs.integration.cli.study import study
from wtacrs.integration.cli.subject_options import with_subject
from wtacrs.integration.training.defaults import NEW_MODEL_LEARNING_RATE

if TYPE_CHECKING:
    from wtacrs.integration.models.opening import Subject


@study.command()
@with_subject(without=())
def budgets(
    estimator: Annotated[
        str, typer.Option(metavar="SPEC", help="Its budget left out, or written {budget} where it lies inside.")
    ] = "wta_crs",
    budget: BudgetsOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs per budget.")] = 3,
    *,
    subject: Subject,
    steps: StepsOption = 900,
    batch_size: BatchSizeOption = 32,
    lr: LearningRateOption = NEW_MODEL_LEARNING_RATE,
    max_length: MaxLengthOption = 48,
    save_every: SaveEveryOption = 300,
    out: OutOption = Path("runs/budgets"),
    overwrite: AnewOption = False,
    seed: SeedOption = 0,
) -> None:
    """Measure accuracy and gradient variance at every budget, beside exact training, over seeds.

    Without --budget: 0.05, 0.1, 0.2, 0.3 and 0.5.
    """
    from wtacrs.integration.studies.budgets import DEFAULT_BUDGETS, budgets_study
    from wtacrs.integration.training.config import FinetuneConfig
    from wtacrs.validation.files import check_folder

    config = FinetuneConfig(
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        max_length=max_length,
        eval_every=steps,
        save_every=save_every,
        seed=seed,
    )
    chosen = budgets_from(budget, DEFAULT_BUDGETS)
    check_folder("out", out)
    result = budgets_study(
        subject,
        config,
        estimator,
        chosen,
        seeds,
        out,
        overwrite=overwrite,
        progress=True,
        skipped=warn_skipped,
    )
    show(result, files=(out / "budgets.json", out / "budgets.png"))
