"""`wtacrs sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import (
    BudgetsOption,
    CaptureFilesArgument,
    DeviceOption,
    JobsOption,
    LayersOption,
    OutOption,
    SchedulerOption,
    ScoresOption,
    budgets_from,
    device_from,
    scores_from,
)
from wtacrs.integration.cli.output import progress_bar, show, warn_skipped


@app.command()
def sweep(
    captures: CaptureFilesArgument,
    budget: BudgetsOption = None,
    layers: LayersOption = None,
    scores: ScoresOption = "oracle",
    products: Annotated[
        bool,
        typer.Option(help="Without ‖G_T‖² it is far quicker, but only an upper bound: no best |C|, no regret."),
    ] = True,
    out: OutOption = Path("runs/sweep"),
    jobs: JobsOption = 1,
    scheduler: SchedulerOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Compute the exact variance of WTA-CRS for every number of winners |C|, and mark both rules' choices.

    Without --budget: at 0.1, 0.3 and 0.5.
    """
    from wtacrs.integration.studies.sweep import DEFAULT_BUDGETS, sweep_study
    from wtacrs.validation.files import check_folder
    from wtacrs.validation.layers.captures import load_captures
    from wtacrs.validation.runner import Runner
    from wtacrs.validation.summaries.sweep import which_winners

    chosen, kinds, place = budgets_from(budget, DEFAULT_BUDGETS), scores_from(scores), device_from(device)
    files = [load_captures(path) for path in captures]
    check_folder("out", out)
    with progress_bar("sweeping") as report:
        result = sweep_study(
            files,
            chosen,
            out,
            layers=layers,
            scores=kinds,
            products=products,
            device=place,
            runner=Runner(jobs, scheduler, out, report, warn_skipped),
        )
    written = (out / "sweep.json", out / "winner_sweep.png", out / "winner_regret.png")
    show(result, lines=which_winners(result.sweeps), files=written)
