"""`wtacrs study transfer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.integration.cli.options import (
    AnewOption,
    AnyScoresOption,
    BudgetsOption,
    CaptureFilesArgument,
    DrawsOption,
    LayersOption,
    OutOption,
    SeedOption,
    budgets_from,
    scores_from,
)
from wtacrs.integration.cli.output import progress_bar, show, warn_skipped
from wtacrs.integration.cli.study import study


@study.command()
def transfer(
    captures: CaptureFilesArgument,
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC", help="As in `study budgets`; unbiased. Repeatable. Default: nine of the zoo."
        ),
    ] = None,
    budget: BudgetsOption = None,
    layers: LayersOption = None,
    scores: AnyScoresOption = None,
    draws: DrawsOption = 200,
    out: OutOption = Path("runs/transfer"),
    overwrite: AnewOption = False,
    seed: SeedOption = 0,
) -> None:
    """Test whether the order of estimators on one model holds on another: Kendall's τ, and the regret of trusting it.

    Compares two or more files of captures. Without --budget: at 0.1 and 0.3.
    """
    from wtacrs.integration.studies.transfer import DEFAULT_BUDGETS, DEFAULT_ESTIMATORS, transfer_study
    from wtacrs.validation.files import check_folder

    chosen, kinds = budgets_from(budget, DEFAULT_BUDGETS), None if scores is None else scores_from(scores)
    check_folder("out", out)
    with progress_bar("comparing") as report:
        result = transfer_study(
            captures,
            estimator or list(DEFAULT_ESTIMATORS),
            chosen,
            out,
            layers=layers,
            scores=kinds,
            draws=draws,
            seed=seed,
            overwrite=overwrite,
            report=lambda name: lambda layer, done, total: report(f"{name}: {layer}", done, total),
            skipped=warn_skipped,
        )
    show(result, files=(out / "transfer.json", out / "transfer.png"))
