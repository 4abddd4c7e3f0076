"""`wtacrs study budgets`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wtacrs.estimators import InputError
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
from wtacrs.integration.cli.output import progress_bar, show, warn_skipped
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
    held_out: Annotated[
        int | None,
        typer.Option(
            min=1, help="Take so many examples of a GLUE task's training file as dev, other ones for every seed."
        ),
    ] = None,
    steps: StepsOption = 900,
    batch_size: BatchSizeOption = 32,
    lr: LearningRateOption = NEW_MODEL_LEARNING_RATE,
    max_length: MaxLengthOption = 48,
    average_last: Annotated[
        int, typer.Option(min=1, help="Count a run by the mean of so many evaluations, the last ones.")
    ] = 1,
    eval_every: Annotated[
        int, typer.Option(min=1, help="Steps between these evaluations; there are no earlier ones.")
    ] = 100,
    margin: Annotated[
        float, typer.Option(help="A loss of the metric that counts; the threshold is where variance costs it.")
    ] = 0.01,
    captured: Annotated[
        int, typer.Option(min=2, help="Batches that variance is measured on, beside the noise between them.")
    ] = 4,
    without_training: Annotated[
        bool,
        typer.Option(
            "--without-training",
            help="Measure variance and memory alone, as of a large model: --model new:t5-base is an untrained one.",
        ),
    ] = False,
    after: Annotated[
        int | None,
        typer.Option(min=0, help="With --without-training: exact steps before the measurement. Default 0."),
    ] = None,
    save_every: SaveEveryOption = 300,
    out: OutOption = Path("runs/budgets"),
    overwrite: AnewOption = False,
    seed: SeedOption = 0,
) -> None:
    """Measure accuracy, gradient variance and memory at every budget, beside exact training, over seeds.

    Tells at which budget sampling adds as much variance as the minibatch has, and at which variance costs accuracy.
    Without --budget: 0.05, 0.1, 0.15, 0.2, 0.3, 0.4 and 0.5.
    """
    from wtacrs.integration.studies.budgets import DEFAULT_BUDGETS, budgets_study, untrained_budgets_study
    from wtacrs.integration.training.config import FinetuneConfig
    from wtacrs.validation.files import check_folder
    from wtacrs.validation.records.budgets import budget_sentences

    _check_mode(without_training, after, held_out, average_last)
    config = FinetuneConfig(
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        max_length=max_length,
        eval_every=steps if average_last == 1 else eval_every,
        eval_from=max(steps - (average_last - 1) * eval_every, 0),
        save_every=save_every,
        seed=seed,
    )
    chosen = budgets_from(budget, DEFAULT_BUDGETS)
    check_folder("out", out)
    options: dict[str, Any] = {"captured": captured, "skipped": warn_skipped}
    if without_training:
        with progress_bar("budgets") as report:
            result = untrained_budgets_study(
                subject, config, estimator, chosen, out, after=after or 0, report=report, **options
            )
    else:
        result = budgets_study(
            replace(subject, held_out=held_out),
            config,
            estimator,
            chosen,
            seeds,
            out,
            average_last=average_last,
            margin=margin,
            overwrite=overwrite,
            progress=True,
            **options,
        )
    show(result, lines=budget_sentences(result), files=(out / "budgets.json", out / "budgets.png"))


def _check_mode(without_training: bool, after: int | None, held_out: int | None, average_last: int) -> None:
    if after is not None and not without_training:
        raise InputError(f"--after {after} is for --without-training alone")
    if without_training and (held_out is not None or average_last != 1):
        given = "--held-out" if held_out is not None else "--average-last"
        raise InputError(f"--without-training, {given}: there are no runs to evaluate")
