"""`wtacrs zoo`."""

from __future__ import annotations

from typing import Annotated

import typer

from wtacrs.integration.cli.app import app, console


@app.command()
def zoo(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|PATH.py:NAME",
            help="One estimator, by name or reference: its definition, proof and variance.",
        ),
    ] = None,
) -> None:
    """List the estimators and what they promise, those of installed packages included, or explain one of them."""
    from wtacrs.estimators import lookup
    from wtacrs.integration.tables.zoo import explained, unusable_lines, zoo_table

    if name is None:
        console.print(zoo_table())
        for line in unusable_lines():
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(explained(lookup(name)), markup=False, highlight=False)
