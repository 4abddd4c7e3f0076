"""`wtacrs experiment`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import AnewOption, DataOption
from wtacrs.integration.cli.output import show


@app.command()
def experiment(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="TOML file that describes the experiment.")],
    data: DataOption = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="Replaces the model that the file names.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="Replaces the vocabulary that the file names.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the experiment; default runs/NAME.")
    ] = None,
    overwrite: AnewOption = False,
) -> None:
    """Train exactly and with estimators over seeds, and test whether they are equivalent within a margin."""
    from wtacrs.integration.studies.experiment import read_experiment, run_experiment
    from wtacrs.validation.files import check_folder

    config = read_experiment(file)
    folder = Path("runs") / config.name if out is None else out
    check_folder("out", folder)
    result = run_experiment(
        config, folder, data=data, model=model, tokenizer=tokenizer, overwrite=overwrite, progress=True
    )
    show(result, files=(folder / "experiment.json", folder / "experiment.png"))
