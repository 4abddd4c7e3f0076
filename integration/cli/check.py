"""`wtacrs check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wtacrs.estimators import InputError
from wtacrs.integration.cli.app import LayersOption, SeedOption, app, console, progress_bar, wrote

if TYPE_CHECKING:
    pass


@app.command()
def check(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="As in 'crs(budget=0.3)'.")],
    captures: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also test the mean on captured layers, at their real size."),
    ] = None,
    layers: LayersOption = None,
    draws: Annotated[int, typer.Option(min=30, help="Draws per captured layer.")] = 2000,
    level: Annotated[float, typer.Option(help="Probability that a sound estimator fails any test.")] = 1e-6,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write the verdicts there, as JSON.")
    ] = None,
    seed: SeedOption = 0,
) -> int:
    """Check an estimator against every law its traits promise; exit code 1 if it breaks one."""
    from wtacrs.estimators import make
    from wtacrs.integration.check_study import check_study
    from wtacrs.integration.tables import check_table
    from wtacrs.validation.captures import load_captures

    estimator = make(spec)
    if layers and captures is None:
        raise InputError(f"--layers {layers[0]!r} chooses among captured layers: it needs --captures FILE")
    opened = None if captures is None else load_captures(captures)
    with progress_bar("checking") as report:
        result = check_study(
            estimator, out, captures=opened, layers=layers, draws=draws, level=level, seed=seed, report=report
        )
    console.print(check_table(result))
    if out is not None:
        wrote(out / f"check-{estimator.name}.json")
    return 0 if result.passed else 1
