"""`wtacrs theory`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wtacrs.integration.cli.app import SeedOption, app, console, progress_bar, wrote

if TYPE_CHECKING:
    pass


@app.command()
def theory(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the result and the figures.")] = Path(
        "runs/theory"
    ),
    seed: SeedOption = 0,
) -> int:
    """What is true of the estimators and what only looks true, a figure each; exit code 1 if a claim fails."""
    from wtacrs.integration.studies.commands import check_folder
    from wtacrs.integration.studies.theory import theory_study
    from wtacrs.integration.tables.theory import theory_table

    check_folder("out", out)
    with progress_bar("theory") as report:
        result = theory_study(out, seed=seed, report=report)
    console.print(theory_table(result))
    wrote(out / "theory.json", *(out / f"theory_{claim.name}.png" for claim in result.claims))
    return 0 if result.holds else 1
