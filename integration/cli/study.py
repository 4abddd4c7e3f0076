"""`wtacrs study`: questions that take several runs or several models to answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.integration.cli.app import (
    DataOption,
    LayersOption,
    ModelOption,
    ScoresOption,
    SeedOption,
    TaskOption,
    TokenizerOption,
    app,
    budgets_from,
    console,
    progress_bar,
    scores_from,
    warn_skipped,
    wrote,
)

study = typer.Typer(
    help="Studies: gradient norms over training, budgets against accuracy, transfer between models.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(study, name="study")

StepsOption = Annotated[int, typer.Option(min=1, help="Optimizer steps of every run.")]
BatchOption = Annotated[int, typer.Option(help="Examples per step.")]
RateOption = Annotated[float, typer.Option(help="Peak learning rate of AdamW.")]
LengthOption = Annotated[int, typer.Option(help="Longest input, in tokens.")]
SaveOption = Annotated[
    int, typer.Option(help="Steps between saved states, from which an interrupted run goes on.")
]
TrainLimitOption = Annotated[int | None, typer.Option(help="Use only so many training examples.")]
DevLimitOption = Annotated[int | None, typer.Option(help="Use only so many dev examples.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Start anew; else what is there is gone on with.")
]


@study.command()
def norms(
    estimator: Annotated[str, typer.Option(metavar="SPEC", help="Estimator of that layer's dW.")] = (
        "wta_crs(budget=0.3)"
    ),
    layer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The layer. Default: first feed-forward projection of the last block."),
    ] = None,
    task: TaskOption = "docstrings",
    data: DataOption = None,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    steps: StepsOption = 300,
    batch_size: BatchOption = 32,
    lr: RateOption = 1e-3,
    max_length: LengthOption = 48,
    save_every: SaveOption = 100,
    train_limit: TrainLimitOption = None,
    dev_limit: DevLimitOption = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the study.")] = Path("runs/norms"),
    overwrite: OverwriteOption = False,
    seed: SeedOption = 0,
) -> None:
    """Gradient norms over training, one layer's dW estimated: used, exact and expected at every step."""
    from wtacrs.integration.studies.commands import check_folder
    from wtacrs.integration.studies.norms import norms_study
    from wtacrs.integration.studies.runs import Subject
    from wtacrs.integration.tables.norms import norms_table
    from wtacrs.integration.training.config import FinetuneConfig

    config = FinetuneConfig(
        estimator=None if estimator == "exact" else estimator,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        max_length=max_length,
        eval_every=steps,
        save_every=save_every,
        seed=seed,
    )
    subject = Subject(task, data, model, tokenizer, train_limit, dev_limit)
    check_folder("out", out)
    result = norms_study(subject, config, out, layer=layer, overwrite=overwrite, progress=True)
    console.print(norms_table(result))
    wrote(out / "gradient_norms.json", out / "gradient_norms.png")


@study.command()
def budgets(
    estimator: Annotated[
        str, typer.Option(metavar="SPEC", help="Its budget left out, or written {budget} where it lies inside.")
    ] = "wta_crs",
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="B", help="0.3 = 30 % of the rows, 32 = 32 rows. Repeatable. Default 0.05 to 0.5."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs per budget.")] = 3,
    task: TaskOption = "docstrings",
    data: DataOption = None,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    steps: StepsOption = 900,
    batch_size: BatchOption = 32,
    lr: RateOption = 1e-3,
    max_length: LengthOption = 48,
    save_every: SaveOption = 300,
    train_limit: TrainLimitOption = None,
    dev_limit: DevLimitOption = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the study.")] = Path("runs/budgets"),
    overwrite: OverwriteOption = False,
    seed: SeedOption = 0,
) -> None:
    """Accuracy and gradient variance against the budget, exact training beside it, over seeds."""
    from wtacrs.integration.studies.budgets import DEFAULT_BUDGETS, budgets_study
    from wtacrs.integration.studies.commands import check_folder
    from wtacrs.integration.studies.runs import Subject
    from wtacrs.integration.tables.budgets import budgets_table
    from wtacrs.integration.training.config import FinetuneConfig

    config = FinetuneConfig(
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        max_length=max_length,
        eval_every=steps,
        save_every=save_every,
        seed=seed,
    )
    chosen = budgets_from(budget) if budget else list(DEFAULT_BUDGETS)
    check_folder("out", out)
    result = budgets_study(
        Subject(task, data, model, tokenizer, train_limit, dev_limit),
        config,
        estimator,
        chosen,
        seeds,
        out,
        overwrite=overwrite,
        progress=True,
        skipped=warn_skipped,
    )
    console.print(budgets_table(result))
    wrote(out / "budgets.json", out / "budgets.png")


@study.command()
def transfer(
    captures: Annotated[
        list[Path], typer.Argument(metavar="CAPTURES…", help="Two or more files written by `wtacrs capture`.")
    ],
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC", help="As in `study budgets`; unbiased. Repeatable. Default: nine of the zoo."
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="B", help="0.3 = 30 % of the rows, 32 = 32 rows. Repeatable. Default 0.1 and 0.3."),
    ] = None,
    layers: LayersOption = None,
    scores: ScoresOption = None,
    draws: Annotated[int, typer.Option(min=3, help="Monte Carlo draws where there is no closed form.")] = 200,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the study.")] = Path("runs/transfer"),
    overwrite: OverwriteOption = False,
    seed: SeedOption = 0,
) -> None:
    """Whether the order of estimators on one model holds on another: Kendall's τ, and the regret of trusting it."""
    from wtacrs.integration.studies.commands import check_folder
    from wtacrs.integration.studies.transfer import DEFAULT_BUDGETS, DEFAULT_ESTIMATORS, transfer_study
    from wtacrs.integration.tables.transfer import transfer_table

    check_folder("out", out)
    with progress_bar("comparing") as report:
        result = transfer_study(
            captures,
            estimator or list(DEFAULT_ESTIMATORS),
            budgets_from(budget) if budget else list(DEFAULT_BUDGETS),
            out,
            layers=layers,
            scores=scores_from(scores),
            draws=draws,
            seed=seed,
            overwrite=overwrite,
            report=lambda name: lambda layer, done, total: report(f"{name}: {layer}", done, total),
            skipped=warn_skipped,
        )
    console.print(transfer_table(result))
    wrote(out / "transfer.json", out / "transfer.png")
