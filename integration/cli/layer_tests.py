"""`wtacrs test`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from wtacrs.estimators import InputError
from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.check import EXIT_CODES
from wtacrs.integration.cli.options import (
    BudgetsOption,
    CapturesArgument,
    DeviceOption,
    EstimatorsOption,
    JobsOption,
    LayersOption,
    OutOption,
    SchedulerOption,
    ScoresOption,
    SeedOption,
    budgets_from,
    device_from,
    scores_from,
)
from wtacrs.integration.cli.output import progress_bar, show, warn_skipped


@app.command("test")
def layer_tests(
    captures: CapturesArgument,
    estimator: EstimatorsOption = None,
    budget: BudgetsOption = None,
    against: Annotated[
        str,
        typer.Option(
            metavar="SPEC", help="Baseline; without a budget it takes the estimator's. 'none': no comparison."
        ),
    ] = "wta_crs",
    quantity: Annotated[
        str, typer.Option(help="What is compared: variance, or mse about the exact product.")
    ] = "variance",
    layers: LayersOption = None,
    scores: ScoresOption = "row-norms",
    draws: Annotated[
        int,
        typer.Option(min=30, help="Draws of the first stage, per layer and estimator; up to 128 times as many."),
    ] = 500,
    bias: Annotated[float, typer.Option(help="Bias along the exact product to rule out, as a share of it.")] = 0.1,
    power: Annotated[float, typer.Option(help="Probability of seeing a bias of that size.")] = 0.99,
    limit: Annotated[
        float,
        typer.Option(help="Seconds per layer and estimator: a stage that would end later is not begun."),
    ] = 60.0,
    level: Annotated[
        float, typer.Option(help="Probability that any of the sound means is rejected; likewise the variances.")
    ] = 0.01,
    out: OutOption = Path("runs/test"),
    seed: SeedOption = 0,
    jobs: JobsOption = 1,
    scheduler: SchedulerOption = None,
    device: DeviceOption = "cpu",
) -> int:
    """Test means and variances on captured layers at their real size.

    Every mean holds, is broken, or stays undecided. Draws are added in stages until it is rejected, or until a bias of
    --bias along the exact product would have been seen with --power, or until --limit is over. Variances are measured on
    the draws of the first stage. A product or layer of somebody else's, as `wtacrs check` takes it, may stand for an
    estimator.

    Exit codes: 0 all claims hold, 1 one is broken, 3 one is undecided, 2 could not be run.

    Without --estimator and --budget: wta_crs at 0.3.
    """
    from wtacrs.estimators.core.references import is_reference
    from wtacrs.integration.cli.their_output import printing_to
    from wtacrs.integration.studies.layer_tests import layer_test_study
    from wtacrs.validation.files import check_folder
    from wtacrs.validation.layers.captures import load_captures
    from wtacrs.validation.runner import Runner
    from wtacrs.validation.summaries.layer_tests import layer_test_summary

    if quantity not in ("variance", "mse"):
        raise InputError(f"--quantity {quantity!r} must be variance or mse")
    budgets, kinds, place = budgets_from(budget, (0.3,)), scores_from(scores), device_from(device)
    opened = load_captures(captures)
    check_folder("out", out)
    theirs = any(is_reference(text) for text in estimator or ())
    with (
        progress_bar("testing") as report,
        printing_to(out / "test.log") if theirs else nullcontext() as printed,
    ):
        result = layer_test_study(
            opened,
            estimator or ["wta_crs"],
            budgets,
            out,
            against=None if against == "none" else against,
            layers=layers,
            scores=kinds,
            quantity=quantity,  # type: ignore[arg-type]
            draws=draws,
            level=level,
            seed=seed,
            device=place,
            bias=bias,
            power=power,
            limit=limit,
            runner=Runner(jobs, scheduler, out, report, warn_skipped),
        )
    files = (out / "layer_tests.json", out / "layer_tests.png")
    show(result, lines=layer_test_summary(result), files=files)
    if printed is not None:
        printed.name_it()
    return EXIT_CODES[result.outcome]
