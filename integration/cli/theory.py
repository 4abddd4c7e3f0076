"""`wtacrs theory`."""

from __future__ import annotations

from pathlib import Path

from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import OutOption, SeedOption
from wtacrs.integration.cli.output import progress_bar, show


@app.command()
def theory(
    out: OutOption = Path("runs/theory"),
    seed: SeedOption = 0,
) -> int:
    """Check every claim of the theory in exact numbers, and draw it; exit code 1 if one fails."""
    from wtacrs.integration.studies.theory import theory_study
    from wtacrs.validation.files import check_folder

    check_folder("out", out)
    with progress_bar("theory") as report:
        result = theory_study(out, seed=seed, report=report)
    figures = (out / f"theory_{claim.name}.png" for claim in result.claims)
    show(result, files=(out / "theory.json", *figures))
    return 0 if result.holds else 1
