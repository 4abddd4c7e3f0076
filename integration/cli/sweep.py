"""`wtacrs sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wtacrs.integration.cli.app import (
    CapturesArgument,
    LayersOption,
    app,
    budgets_from,
    console,
    progress_bar,
    scores_from,
    warn_skipped,
    wrote,
)

if TYPE_CHECKING:
    pass


@app.command()
def sweep(
    captures: CapturesArgument,
    budget: Annotated[str, typer.Option(metavar="B", help="0.3 = 30 % of the rows, 32 = 32 rows.")] = "0.3",
    layers: LayersOption = None,
    scores: Annotated[
        str, typer.Option(help="oracle (‖x‖‖dy‖), row-norms (‖x‖), stale (‖x‖ · earlier ‖dy‖), both or all.")
    ] = "oracle",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the result and the figure.")] = Path(
        "runs/sweep"
    ),
) -> None:
    """Exact variance of WTA-CRS for every number of winners |C|, with both rules' choices marked."""
    from wtacrs.integration.commands import check_folder
    from wtacrs.integration.sweep_study import sweep_study
    from wtacrs.integration.tables import sweep_table
    from wtacrs.validation.captures import load_captures

    check_folder("out", out)
    with progress_bar("sweeping") as report:
        result = sweep_study(
            load_captures(captures),
            budgets_from([budget])[0],
            out,
            layers=layers,
            scores=scores_from(scores) or ("oracle",),
            report=report,
            skipped=warn_skipped,
        )
    console.print(sweep_table(result))
    wrote(out / "sweep.json", out / "winner_sweep.png")
