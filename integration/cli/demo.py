"""`wtacrs demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wtacrs.integration.cli.app import SeedOption, app, console

if TYPE_CHECKING:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for results, figures and report.")] = Path(
        "runs/demo"
    ),
    seed: SeedOption = 0,
) -> None:
    """The whole line, offline: train exactly and with WTA-CRS, capture, compare, sweep, check, report."""
    from wtacrs.integration.studies.commands import check_folder
    from wtacrs.integration.studies.demo import run_demo

    check_folder("out", out)
    run_demo(out, seed=seed, console=console)
