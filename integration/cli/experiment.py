"""`wtacrs experiment`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from wtacrs.estimators import InputError
from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.completion import complete_experiment
from wtacrs.integration.cli.options import AnewOption
from wtacrs.integration.cli.output import show
from wtacrs.integration.cli.subject_options import DataOption

if TYPE_CHECKING:
    from wtacrs.validation.records.base import Result


@app.command()
def experiment(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE|NAME",
            help="TOML file that describes the experiment, or the name of a built-in one.",
            autocompletion=complete_experiment,
        ),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the built-in experiments.")] = False,
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
    runs_of: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Folder of another experiment, whose finished runs of the same settings, seed and examples are copied "
            "and not trained again; repeatable.",
        ),
    ] = None,
    overwrite: AnewOption = False,
) -> None:
    """Train exactly and with estimators over seeds, and test whether they are equivalent within a margin.

    A file with [factors] in place of [methods] crosses them: effects and interactions, with their intervals.
    """
    from wtacrs.integration.studies.experiment import ExperimentConfig, run_experiment
    from wtacrs.integration.studies.experiment_config import read_config
    from wtacrs.integration.studies.experiment_files import experiment_file, experiment_names
    from wtacrs.integration.studies.experiment_runs import RunOptions
    from wtacrs.integration.studies.factorial import FactorialConfig, run_factorial
    from wtacrs.validation.files import check_folder

    if listed:
        names = experiment_names()
        show([{"name": name} for name in names], tables=(), lines=names)
        return
    if file is None:
        raise InputError("experiment needs a FILE or the NAME of a built-in one; --list tells them")
    config = read_config(experiment_file(file), {"methods": ExperimentConfig, "factors": FactorialConfig})
    folder = Path("runs") / config.name if out is None else out
    check_folder("out", folder)
    for other in runs_of or ():
        if not other.is_dir():
            raise InputError(f"runs-of={other} is no folder")
    options = RunOptions(data, model, tokenizer, runs_of or (), overwrite, progress=True)
    result: Result
    if isinstance(config, FactorialConfig):
        name, result = "factorial", run_factorial(config, folder, options)
    else:
        name, result = "experiment", run_experiment(cast("ExperimentConfig", config), folder, options)
    show(result, files=(folder / f"{name}.json", folder / f"{name}.png"))
