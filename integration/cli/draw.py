"""`wtacrs draw`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wtacrs.estimators import InputError
from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import budgets_from
from wtacrs.integration.cli.output import console, show_table, wrote


@app.command(as_json=False, dry=False)
def draw(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT.json… [OUT.png]", help="Result files, and possibly the picture to write."),
    ],
    figure: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this figure, as in variance_bytes or winner_regret.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the figures. Default: that of the result.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="X", help="x axis: budget, bytes or macs of a comparison; step or seconds of training."
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="B", help="Which budget of a sweep. Default: the middle one.")
    ] = None,
    relative_to: Annotated[
        str | None, typer.Option(metavar="UNIT", help="Unit of a sweep's variance: crs or gradient (‖G‖²).")
    ] = None,
    layers: Annotated[
        list[str] | None, typer.Option("--layers", metavar="NAME", help="Which layers of a sweep. Repeatable.")
    ] = None,
    files: Annotated[
        list[str] | None, typer.Option("--files", metavar="NAME", help="Which two files of a transfer. Give two.")
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Print the tables of the results too.")] = False,
) -> None:
    """Draw the figures of result files.

    Without OUT.png every figure is written beside its result under its own name. A result whose kind has no figure is
    printed as a table.
    """
    options = {
        "against": against,
        "budget": None if budget is None else budgets_from([budget])[0],
        "relative_to": relative_to,
        "layers": layers or None,
        "files": files or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if paths[0].is_dir():
        raise InputError(f"{paths[0]} is a folder: wtacrs report {paths[0]}")
    _figures(paths, figure, out, given, table)


def _figures(
    paths: list[Path], figure: str | None, out: Path | None, options: dict[str, Any], table: bool
) -> None:
    from wtacrs.figures.draw import draw_all, draw_one
    from wtacrs.figures.kinds import view_of
    from wtacrs.integration.tables.kinds import tables_of
    from wtacrs.validation.records.results import load_result

    target = paths.pop() if paths[-1].suffix.lower() == ".png" else None
    if not paths:
        raise InputError(f"{target} is a picture to write: name the result file before it")
    if target is not None and out is not None:
        raise InputError(f"--out {out} and {target} both say where the figure goes: give one of them")
    if target is None and options:
        raise InputError(f"--{next(iter(options)).replace('_', '-')} changes one figure: say OUT.png")
    results = [(path, load_result(path)) for path in paths]
    if target is not None:
        drawn = [draw_one(results, target, figure, options)]
    else:
        having = [(path, result) for path, result in results if figure or view_of(result.kind).drawings]
        drawn = draw_all(having, out, figure, lambda name, reason: _say(f"no figure {name}: {reason}"))
    for path, result in results:
        undrawn = view_of(result.kind).no_figure
        if undrawn:
            _say(f"no figure of {path}: {undrawn}")
        for shown in tables_of(result) if table or undrawn else ():
            show_table(shown)
    wrote(*drawn)


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
