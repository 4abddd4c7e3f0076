"""`wtacrs plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.integration.cli.app import app, console, progress_bar, wrote
from wtacrs.integration.cli.options import (
    BatchSizeOption,
    DataOption,
    DeviceOption,
    MaxLengthOption,
    ModelOption,
    OutOption,
    SeedOption,
    TaskOption,
    TokenizerOption,
    device_from,
)


@app.command()
def plan(
    memory: Annotated[
        str,
        typer.Option(metavar="SIZE", help="What the step may need in all, as in 8GB (10⁹ bytes) or 7.5GiB (2³⁰)."),
    ],
    noise_ceiling: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="The most noise, over the minibatch's own; the fastest plan is found. Default 1."
        ),
    ] = None,
    time_ceiling: Annotated[
        float | None,
        typer.Option(min=0.0, help="The most time, over the stock step's; the plan with least noise is found."),
    ] = None,
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC", help="Estimators that blocks may have. Repeatable; default wta_crs at 6 budgets."
        ),
    ] = None,
    lean: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORDS",
            help="How blocks may be lean, as in 'attention'. Repeatable; default neighbours, attention.",
        ),
    ] = None,
    captured: Annotated[
        int, typer.Option(min=0, help="Batches that the noise is found on; 0 for a general law in its place.")
    ] = 4,
    costs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An earlier plan, whose costs are used again; nothing is measured."),
    ] = None,
    task: TaskOption = "docstrings",
    data: DataOption = None,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    batch_size: BatchSizeOption = 32,
    max_length: MaxLengthOption = 128,
    device: DeviceOption = "cpu",
    out: OutOption = Path("runs/plan"),
    seed: SeedOption = 0,
) -> None:
    """Choose for every block whether to sample it, make it lean or checkpoint it, within an amount of memory.

    Measures every choice on a batch of the task, and solves an integer program. `wtacrs finetune --plan` trains by it.
    """
    from wtacrs.integration.models.opening import Subject
    from wtacrs.integration.planning.choices import ESTIMATORS, LEAN
    from wtacrs.integration.studies.plan import Limits, plan_study
    from wtacrs.integration.tables.plan import plan_table
    from wtacrs.validation.records.plan import plan_sentences
    from wtacrs.validation.records.units import bytes_from

    ceiling = 1.0 if noise_ceiling is None and time_ceiling is None else noise_ceiling
    with progress_bar("plan") as report:
        result = plan_study(
            Subject(task, data, model, tokenizer),
            Limits(bytes_from(memory, "--memory"), ceiling, time_ceiling),
            out,
            batch_size=batch_size,
            max_length=max_length,
            estimators=estimator or ESTIMATORS,
            lean=lean or LEAN,
            captured=captured,
            costs=costs,
            device=device_from(device),
            seed=seed,
            report=report,
        )
    console.print(plan_table(result))
    for sentence in plan_sentences(result):
        console.print(sentence, highlight=False, markup=False)
    wrote(out / "plan.json", out / "plan.png")
