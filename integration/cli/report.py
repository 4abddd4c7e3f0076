"""`wtacrs report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.estimators import InputError
from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.output import wrote


@app.command(as_json=False, dry=False)
def report(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="DIR…", help="Folders of results, sub-folders included, or result files."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="The page. Default: report.html in the first folder.")
    ] = None,
) -> None:
    """Write one page of all results in folders: the verdict, then tables and figures."""
    from wtacrs.figures.report.report import write_report

    if out is not None and out.suffix.lower() != ".html":
        raise InputError(f"--out {out}: the name must end in .html")
    wrote(write_report(paths, out))
