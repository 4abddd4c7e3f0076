"""`wtacrs draw`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from wtacrs.estimators import InputError
from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import budgets_from
from wtacrs.integration.cli.output import console, show_table, wrote

_MOST = 6
"""Figures that a message names."""


@app.command(as_json=False, dry=False)
def draw(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT.json… [FIGURE]", help="Result files, and possibly the picture to write."),
    ],
    figure: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this figure, as in oracle_ratio or winner_regret.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="One figure as .png, .pdf or .svg, or a folder for all of them. Default: the result's folder.",
        ),
    ] = None,
    suffix: Annotated[
        str, typer.Option("--format", metavar="KIND", help="Of figures in a folder: png, pdf or svg.")
    ] = "png",
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Inches, as in 3.5x2.6; or column (3.25 wide) or page (6.75 wide), as high as it takes.",
        ),
    ] = None,
    style: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="A style of matplotlib, or an .mplstyle file.")
    ] = None,
    dpi: Annotated[int, typer.Option(min=30, max=1200, help="Of PNG files.")] = 150,
    dark: Annotated[bool, typer.Option("--dark", help="For a dark page.")] = False,
    no_title: Annotated[
        bool, typer.Option("--no-title", help="Without the figure's title, which a paper says in the caption.")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="X",
            help="x axis: budget, bytes or macs of a comparison, default all; step or seconds of training.",
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="B", help="Which budget of a sweep. Default: the middle one.")
    ] = None,
    relative_to: Annotated[
        str | None, typer.Option(metavar="UNIT", help="Unit of a sweep's variance: crs or gradient (‖G‖²).")
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layers", metavar="PATTERN", help="Which layers of a sweep, as in '*.query'. Repeatable."),
    ] = None,
    files: Annotated[
        list[str] | None, typer.Option("--files", metavar="NAME", help="Which two files of a transfer. Give two.")
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Print the tables of the results too.")] = False,
) -> None:
    """Draw the figures of result files.

    Without a picture to write every figure is written beside its result under its own name. A result whose kind has no
    figure is printed as a table.
    """
    from wtacrs.figures.style import wanted

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
    if suffix not in ("png", "pdf", "svg"):
        raise InputError(f"--format {suffix!r} must be png, pdf or svg")
    with wanted(size=None if size is None else _size(size), style=style, title=not no_title):
        _figures(paths, figure, out, given, table, suffix=f".{suffix}", dark=dark, dpi=dpi)


def _size(text: str) -> tuple[float, float | None]:
    from wtacrs.figures.style import SIZES

    if text in SIZES:
        return SIZES[text]
    width, _, height = text.partition("x")
    try:
        return float(width), float(height)
    except ValueError:
        raise InputError(f"--size {text!r} must be inches as in 3.5x2.6, or {' or '.join(SIZES)}") from None


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in (".png", ".pdf", ".svg")


def _figures(
    paths: list[Path],
    figure: str | None,
    out: Path | None,
    options: dict[str, Any],
    table: bool,
    *,
    suffix: str,
    **saved: Any,
) -> None:
    from wtacrs.figures.drawing import draw_all, draw_one
    from wtacrs.figures.kinds import view_of
    from wtacrs.integration.tables.kinds import tables_of
    from wtacrs.validation.records.results import load_result

    target = paths.pop() if _is_picture(paths[-1]) else None
    if not paths:
        raise InputError(f"{target} is a picture to write: name the result file before it")
    if target is not None and out is not None:
        raise InputError(f"--out {out} and {target} both say where the figure goes: give one of them")
    if out is not None and _is_picture(out):
        target, out = out, None
    if target is None and out is not None:
        _refuse_other_formats(out)
    if target is None and options:
        raise InputError(f"--{next(iter(options)).replace('_', '-')} changes one figure: say --out FILE")
    results = [(path, load_result(path)) for path in paths]
    if target is not None:
        drawn = [draw_one(results, target, figure, options, _say_which if figure is None else None, **saved)]
    else:
        having = [(path, result) for path, result in results if figure or view_of(result.kind).drawings]
        drawn = draw_all(
            having, out, figure, lambda name, why: _say(f"no figure {name}: {why}"), suffix=suffix, **saved
        )
    for path, result in results:
        undrawn = view_of(result.kind).no_figure
        if undrawn:
            _say(f"no figure of {path}: {undrawn}")
        for shown in tables_of(result) if table or undrawn else ():
            show_table(shown)
    wrote(*drawn)


def _refuse_other_formats(out: Path) -> None:
    """A name such as y.jpg, which is no folder, means a picture that cannot be written."""
    if out.suffix.removeprefix(".").isalpha() and not out.is_dir():
        raise InputError(
            f"--out {out}: a figure must end in .png, .pdf or .svg, and there is no folder of this name"
        )


def _say_which(name: str, others: Sequence[str]) -> None:
    if others:
        told = f"{', '.join(others[:_MOST])}{' …' if len(others) > _MOST else ''}"
        _say(f"drew {name}; --figure NAME draws another: {told}")


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
