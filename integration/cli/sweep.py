"""`wtacrs sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.integration.cli.app import (
    DeviceOption,
    JobsOption,
    LayersOption,
    SchedulerOption,
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
def sweep(
    captures: Annotated[
        list[Path], typer.Argument(metavar="CAPTURES...", help="Files written by `wtacrs capture`.")
    ],
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="B", help="0.3 = 30 % of the rows, 32 = 32 rows. Repeatable; default 0.1, 0.3 and 0.5."
        ),
    ] = None,
    layers: LayersOption = None,
    scores: Annotated[
        str, typer.Option(help="oracle (‖x‖‖dy‖), row-norms (‖x‖), stale (‖x‖ · earlier ‖dy‖), both or all.")
    ] = "oracle",
    products: Annotated[
        bool,
        typer.Option(help="Without ‖G_T‖² it is far quicker, but only an upper bound: no best |C|, no regret."),
    ] = True,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the result and the figures.")] = Path(
        "runs/sweep"
    ),
    jobs: JobsOption = 1,
    scheduler: SchedulerOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Exact variance of WTA-CRS for every number of winners |C|, with both rules' choices marked."""
    from wtacrs.integration.studies.commands import check_folder
    from wtacrs.integration.studies.sweep import DEFAULT_BUDGETS, sweep_study
    from wtacrs.integration.tables.sweep import sweep_table
    from wtacrs.validation.layers.captures import load_captures
    from wtacrs.validation.runner import Runner
    from wtacrs.validation.summaries.sweep import which_winners

    chosen = budgets_from(budget) if budget else list(DEFAULT_BUDGETS)
    files = [load_captures(path) for path in captures]
    check_folder("out", out)
    with progress_bar("sweeping") as report:
        result = sweep_study(
            files,
            chosen,
            out,
            layers=layers,
            scores=scores_from(scores) or ("oracle",),
            products=products,
            device=device_from(device),
            runner=Runner(jobs, scheduler, out, report, warn_skipped),
        )
    console.print(sweep_table(result))
    for sentence in which_winners(result.sweeps):
        console.print(sentence, highlight=False)
    wrote(out / "sweep.json", out / "winner_sweep.png", out / "winner_regret.png")
