"""`wtacrs noise`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import (
    AnyScoresOption,
    BudgetsOption,
    CapturesArgument,
    DeviceOption,
    EstimatorsOption,
    JobsOption,
    LayersOption,
    OutOption,
    SchedulerOption,
    SeedOption,
    budgets_from,
    device_from,
    scores_from,
)
from wtacrs.integration.cli.output import progress_bar, show, warn_skipped
from wtacrs.integration.cli.subject_options import with_subject

if TYPE_CHECKING:
    from wtacrs.integration.models.opening import Subject


@app.command()
@with_subject(without=("task", "train_limit", "dev_limit"))
def noise(
    captures: CapturesArgument,
    estimator: EstimatorsOption = None,
    budget: BudgetsOption = None,
    layers: LayersOption = None,
    scores: AnyScoresOption = None,
    draws: Annotated[
        int, typer.Option(min=3, help="Monte Carlo draws per batch where there is no closed form.")
    ] = 64,
    min_elements: Annotated[
        int,
        typer.Option(
            min=0,
            help="A layer whose input has fewer numbers counts as exact, as in training; its own row tells what it "
            "would add.",
        ),
    ] = 16_384,
    lean: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORDS",
            help="8-bit or 4-bit, repeatable: run the captured model again with codes of activations, alone and beside "
            "the first unbiased estimator.",
        ),
    ] = None,
    *,
    subject: Subject,
    out: OutOption = Path("runs/noise"),
    seed: SeedOption = 0,
    jobs: JobsOption = 1,
    scheduler: SchedulerOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Measure what estimators add to the minibatch's own gradient noise; needs several captured batches.

    Without --estimator and --budget: topk, crs and wta_crs with both choices of winners, at 0.1, 0.3 and 0.5.
    --data, --model and --tokenizer say what was captured, as for `wtacrs capture`, and are read with --lean alone.
    """
    from wtacrs.integration.studies.noise import DEFAULT_BUDGETS, DEFAULT_ESTIMATORS, noise_study
    from wtacrs.validation.files import check_folder
    from wtacrs.validation.layers.captures import load_captures
    from wtacrs.validation.runner import Runner

    chosen, place = budgets_from(budget, DEFAULT_BUDGETS), device_from(device)
    kinds = None if scores is None else scores_from(scores)
    opened = load_captures(captures)
    check_folder("out", out)
    with progress_bar("noise") as report:
        result = noise_study(
            opened,
            estimator or list(DEFAULT_ESTIMATORS),
            chosen,
            out,
            layers=layers,
            scores=kinds,
            draws=draws,
            seed=seed,
            device=place,
            lean=lean or (),
            subject=subject,
            min_elements=min_elements,
            runner=Runner(jobs, scheduler, out, report, warn_skipped),
        )
    verdicts = (entry.verdict for entry in result.models)
    show(result, lines=verdicts, files=(out / "noise.json", out / "noise.png"))
