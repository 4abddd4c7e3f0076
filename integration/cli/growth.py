"""`wtacrs study growth`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wtacrs.integration.cli.options import JobsOption, OutOption, SeedOption
from wtacrs.integration.cli.output import progress_bar, show
from wtacrs.integration.cli.study import study


@study.command()
def growth(
    corpus: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder with *train*.txt[.gz] and *valid*.txt[.gz].")
    ],
    family: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="t5 or decoder, several times; default both.")
    ] = None,
    width: Annotated[
        list[int] | None, typer.Option(help="Several times, multiples of 32; default 64 96 128 192 256.")
    ] = None,
    depth: Annotated[list[int] | None, typer.Option(help="Blocks, several times; default 2 4 8.")] = None,
    base_width: Annotated[int, typer.Option(help="Of the models whose depth grows.")] = 128,
    base_depth: Annotated[int, typer.Option(help="Of the models whose width grows.")] = 4,
    step: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Measured after so many steps, several times; default 50 150 400."),
    ] = None,
    estimator: Annotated[
        list[str] | None, typer.Option(metavar="SPEC", help="With its size, several times.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Models of every size.")] = 3,
    batch_size: Annotated[int, typer.Option(help="Pieces of text per batch, at least 4.")] = 16,
    length: Annotated[int, typer.Option(help="Tokens of a piece.")] = 64,
    batches: Annotated[int, typer.Option(help="That a model is measured on, at least 3.")] = 4,
    lr: Annotated[float, typer.Option(help="Learning rate, the same for all.")] = 1e-3,
    vocabulary: Annotated[int, typer.Option(help="Pieces of the vocabulary that is made from the text.")] = 2000,
    out: OutOption = Path("runs/growth"),
    jobs: JobsOption = 1,
    seed: SeedOption = 0,
) -> None:
    """Train new models of many sizes on one text, and test whether larger ones can be sampled more sparsely."""
    from wtacrs.integration.studies.growth import GrowthConfig, growth_study
    from wtacrs.validation.runner import Runner

    options: dict[str, Any] = {
        name: tuple(given)
        for name, given in {
            "families": family,
            "widths": width,
            "depths": depth,
            "steps": step,
            "estimators": estimator,
        }.items()
        if given
    }
    config = GrowthConfig(
        **options,
        base_width=base_width,
        base_depth=base_depth,
        seeds=seeds,
        batch_size=batch_size,
        length=length,
        batches=batches,
        lr=lr,
        vocabulary=vocabulary,
        seed=seed,
    )
    with progress_bar("models") as report:
        result = growth_study(config, corpus, out, runner=Runner(jobs, folder=out, report=report))
    show(result, files=(out / "growth.json", out / "growth.png"))
