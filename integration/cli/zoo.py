"""`wtacrs zoo`."""

from __future__ import annotations

from typing import Annotated

import typer

from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.output import show


@app.command(dry=False)
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
    from wtacrs.estimators import available, lookup
    from wtacrs.integration.tables.zoo import described, explained, unusable_lines, zoo_table

    if name is not None:
        cls = lookup(name)
        show(described(cls), tables=(explained(cls),))
    else:
        show([described(lookup(one)) for one in available()], tables=(zoo_table(),), lines=unusable_lines())
