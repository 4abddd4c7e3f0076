"""`wtacrs compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wtacrs.estimators import InputError
from wtacrs.integration.cli.app import (
    CapturesArgument,
    LayersOption,
    SeedOption,
    app,
    budgets_from,
    console,
    progress_bar,
    scores_from,
    warn_skipped,
    wrote,
)

if TYPE_CHECKING:
    from wtacrs.validation.records import ScoreKind


@app.command()
def compare(
    captures: CapturesArgument,
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC", help="As in 'wta_crs(winners=\"optimal\")'; without a budget: at each --budget."
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="B", help="0.3 = 30 % of the rows, 32 = 32 rows (all, if fewer). Repeatable."),
    ] = None,
    share: Annotated[
        list[float] | None,
        typer.Option(
            "--bytes", metavar="S", help="Instead: paper's WTA-CRS and `recommended` at this share of bytes."
        ),
    ] = None,
    layers: LayersOption = None,
    scores: Annotated[str, typer.Option(help="oracle (‖x‖‖dy‖), row-norms (‖x‖) or both.")] = "both",
    draws: Annotated[int, typer.Option(min=3, help="Monte Carlo draws where there is no closed form.")] = 1000,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the result and the figures.")] = Path(
        "runs/compare"
    ),
    seed: SeedOption = 0,
) -> None:
    """Bias, variance, stored bytes and multiplications of estimators on captured layers."""
    from wtacrs.integration.commands import check_folder
    from wtacrs.integration.comparison_study import DEFAULT_BUDGETS, DEFAULT_ESTIMATORS, comparison_study
    from wtacrs.integration.tables import comparison_table
    from wtacrs.validation.captures import load_captures

    if share:
        if estimator or budget:
            raise InputError("--bytes compares two estimators of its own: leave out --estimator and --budget")
        _compare_bytes(captures, share, layers, scores_from(scores), min(draws, 32), out, seed)
        return
    chosen = budgets_from(budget) if budget else list(DEFAULT_BUDGETS)
    check_folder("out", out)
    with progress_bar("comparing") as report:
        result = comparison_study(
            load_captures(captures),
            estimator or list(DEFAULT_ESTIMATORS),
            chosen,
            out,
            layers=layers,
            scores=scores_from(scores),
            draws=draws,
            seed=seed,
            report=report,
            skipped=warn_skipped,
        )
    console.print(comparison_table(result))
    axes = ("budget", "bytes", "multiplications")
    wrote(out / "comparison.json", *(out / f"variance_{axis}.png" for axis in axes))


def _compare_bytes(
    captures: Path,
    shares: Sequence[float],
    layers: list[str] | None,
    scores: tuple[ScoreKind, ...],
    draws: int,
    out: Path,
    seed: int,
) -> None:
    from wtacrs.integration.commands import check_folder
    from wtacrs.integration.comparison_study import equal_bytes_study
    from wtacrs.integration.tables import ratio_table
    from wtacrs.validation.captures import load_captures

    opened = load_captures(captures)
    check_folder("out", out)
    with progress_bar("comparing") as report:
        ratios = equal_bytes_study(
            opened,
            shares,
            out,
            layers=layers,
            scores=scores,
            draws=draws,
            seed=seed,
            report=report,
            skipped=warn_skipped,
        )
    console.print(ratio_table(ratios))
    wrote(*(out / f"equal_bytes-{share:g}.json" for share in shares))
