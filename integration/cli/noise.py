"""`wtacrs noise`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.integration.cli.app import (
    CapturesArgument,
    DeviceOption,
    JobsOption,
    LayersOption,
    SchedulerOption,
    ScoresOption,
    SeedOption,
    app,
    budgets_from,
    console,
    device_from,
    progress_bar,
    scores_from,
    warn_skipped,
    wrote,
)


@app.command()
def noise(
    captures: CapturesArgument,
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC", help="As in 'wta_crs(winners=\"optimal\")'; without a budget: at each --budget."
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="B", help="0.3 = 30 % of the rows, 32 = 32 rows. Repeatable; default 0.1, 0.3 and 0.5."
        ),
    ] = None,
    layers: LayersOption = None,
    scores: ScoresOption = None,
    draws: Annotated[
        int, typer.Option(min=3, help="Monte Carlo draws per batch where there is no closed form.")
    ] = 64,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the result and the figure.")] = Path(
        "runs/noise"
    ),
    seed: SeedOption = 0,
    jobs: JobsOption = 1,
    scheduler: SchedulerOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """What estimators add to the noise that the minibatch's gradient has anyway; needs several captured batches."""
    from wtacrs.integration.studies.commands import check_folder
    from wtacrs.integration.studies.noise import DEFAULT_BUDGETS, DEFAULT_ESTIMATORS, noise_study
    from wtacrs.integration.tables.noise import noise_table
    from wtacrs.validation.layers.captures import load_captures
    from wtacrs.validation.runner import Runner

    chosen = budgets_from(budget) if budget else list(DEFAULT_BUDGETS)
    opened = load_captures(captures)
    check_folder("out", out)
    with progress_bar("noise") as report:
        result = noise_study(
            opened,
            estimator or list(DEFAULT_ESTIMATORS),
            chosen,
            out,
            layers=layers,
            scores=scores_from(scores),
            draws=draws,
            seed=seed,
            device=device_from(device),
            runner=Runner(jobs, scheduler, out, report, warn_skipped),
        )
    console.print(noise_table(result))
    for entry in result.models:
        console.print(entry.verdict, highlight=False, markup=False)
    wrote(out / "noise.json", out / "noise.png")
