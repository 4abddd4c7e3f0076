"""`wtacrs study winners`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.integration.cli.completion import complete_task
from wtacrs.integration.cli.options import (
    BatchSizeOption,
    BudgetsOption,
    JobsOption,
    LearningRateOption,
    MaxLengthOption,
    OutOption,
    SeedOption,
    budgets_from,
)
from wtacrs.integration.cli.output import progress_bar, show, warn_skipped
from wtacrs.integration.cli.study import study
from wtacrs.integration.cli.subject_options import DataOption, TokenizerOption, TrainLimitOption
from wtacrs.integration.training.defaults import NEW_MODEL_LEARNING_RATE


@study.command()
def winners(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|DIR",
            help="As elsewhere, and new:t5 for the small new T5. Repeatable. Default: small new T5, BERT, GPT-2, "
            "DeBERTa, OPT and Llama.",
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Repeatable. Default: sst2, mrpc and rte with --data, else docstrings.",
            autocompletion=complete_task,
        ),
    ] = None,
    data: DataOption = None,
    tokenizer: TokenizerOption = None,
    train_limit: TrainLimitOption = None,
    after: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            metavar="STEPS",
            help="Of exact training before a batch is captured. Repeatable. Default: 0, 100, 300.",
        ),
    ] = None,
    age: Annotated[
        int, typer.Option(min=1, help="The stale scores know the gradient norms of so many steps before.")
    ] = 50,
    budget: BudgetsOption = None,
    fraction: Annotated[
        list[float] | None,
        typer.Option(help="Fixed |C| as a part of k, in [0, 1). Repeatable. Default: 0, 0.25, 0.5, 0.75, 0.9."),
    ] = None,
    min_rows: Annotated[
        int, typer.Option(min=1, metavar="N", help="Leave out layers with fewer rows than this.")
    ] = 64,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of every model on every task.")] = 2,
    batch_size: BatchSizeOption = 16,
    lr: LearningRateOption = NEW_MODEL_LEARNING_RATE,
    max_length: MaxLengthOption = 64,
    out: OutOption = Path("runs/winners"),
    jobs: JobsOption = 1,
    seed: SeedOption = 0,
) -> None:
    """Compute what rules for the number of winners |C| cost, by architecture, task, time in training and scores.

    Exact, by closed forms: no draw. Every model is trained exactly on every task, once through all times. Without
    --budget: at 0.1 and 0.3.
    """
    from wtacrs.integration.studies.winners import (
        BUDGETS,
        FRACTIONS,
        MODELS,
        TIMES,
        winners_study,
        winners_subjects,
    )
    from wtacrs.validation.files import check_folder
    from wtacrs.validation.runner import Runner
    from wtacrs.validation.summaries.winners import winners_sentences

    chosen = budgets_from(budget, BUDGETS)
    subjects = winners_subjects(model or MODELS, task, data=data, tokenizer=tokenizer, train_limit=train_limit)
    check_folder("out", out)
    with progress_bar("trainings") as report:
        result = winners_study(
            subjects,
            out,
            times=after or TIMES,
            budgets=chosen,
            fractions=fraction or FRACTIONS,
            age=age,
            batch_size=batch_size,
            max_length=max_length,
            min_rows=min_rows,
            lr=lr,
            seeds=seeds,
            seed=seed,
            runner=Runner(jobs=jobs, folder=out, report=report, skipped=warn_skipped),
        )
    show(result, lines=winners_sentences(result), files=(out / "winners.json", out / "winners.png"))
