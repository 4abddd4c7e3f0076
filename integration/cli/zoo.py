"""`wtacrs zoo`."""

from __future__ import annotations

from typing import Annotated

import typer

from wtacrs.integration.cli.app import app, console


@app.command()
def zoo(
    name: Annotated[str | None, typer.Argument(help="One estimator: its definition, proof and variance.")] = None,
) -> None:
    """List the estimators and what they promise, or explain one of them."""
    from wtacrs.estimators import lookup
    from wtacrs.integration.tables.zoo import explained, zoo_table

    if name is None:
        console.print(zoo_table())
    else:
        console.print(explained(lookup(name)), markup=False, highlight=False)
