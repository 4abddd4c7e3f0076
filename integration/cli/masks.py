"""`wtacrs study masks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.integration.cli.options import EstimatorOption, JobsOption, OutOption, SeedOption
from wtacrs.integration.cli.output import progress_bar, show
from wtacrs.integration.cli.study import study


@study.command()
def masks(
    architecture: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Only architectures whose name fits, as in 'bert' or '*t5'. Repeatable."
        ),
    ] = None,
    estimator: EstimatorOption = "wta_crs(budget=0.3)",
    out: OutOption = Path("runs/masks"),
    jobs: JobsOption = 1,
    seed: SeedOption = 0,
) -> None:
    """Compute the mean gradient of many tiny architectures under right, random, opposite and no masks.

    Exact, by closed forms: no draw. Padding stands right and left.
    """
    from wtacrs.integration.studies.masks import masks_study
    from wtacrs.validation.files import check_folder
    from wtacrs.validation.runner import Runner

    check_folder("out", out)
    with progress_bar("architectures") as report:
        runner = Runner(jobs=jobs, folder=out, report=report)
        result = masks_study(out, architectures=architecture, estimator=estimator, seed=seed, runner=runner)
    show(result, files=(out / "masks.json", out / "masks.png"))
