"""`wtacrs memory`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import (
    BatchSizeOption,
    BudgetOfOption,
    DeviceOption,
    LayersOption,
    LeansOption,
    LoraFaOption,
    LoraRankOption,
    MaxLengthOption,
    MinRowsOption,
    OutOption,
    PrecisionOption,
    SeedOption,
    device_from,
)
from wtacrs.integration.cli.output import progress_bar, show
from wtacrs.integration.cli.subject_options import with_subject

if TYPE_CHECKING:
    from wtacrs.integration.models.opening import Subject


@app.command()
@with_subject()
def memory(
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="Estimator of dW, or as in 'mine.py:Mine(budget=0.3)'. Repeatable; default wta_crs(budget=0.3).",
        ),
    ] = None,
    *,
    subject: Subject,
    batch_size: BatchSizeOption = 32,
    max_length: MaxLengthOption = 128,
    precision: PrecisionOption = "fp32",
    lean: LeansOption = None,
    budget_of: BudgetOfOption = "all-rows",
    min_rows: MinRowsOption = 0,
    layers: LayersOption = None,
    lora_rank: LoraRankOption = None,
    lora_fa: LoraFaOption = False,
    owners: Annotated[
        bool,
        typer.Option("--owners", help="Tell who holds what, in exact training and with the first estimator."),
    ] = False,
    device: DeviceOption = "cpu",
    out: OutOption = Path("runs/memory"),
    seed: SeedOption = 0,
) -> None:
    """Measure what one training step keeps for its backward pass, by type of layer.

    Measures exact training, estimators, activation checkpointing, and both together; with --lean all of them once more.
    """
    from wtacrs.integration.studies.memory import memory_study
    from wtacrs.validation.records.memory import memory_sentences

    with progress_bar("memory") as report:
        result = memory_study(
            subject,
            estimator or ["wta_crs(budget=0.3)"],
            out,
            batch_size=batch_size,
            max_length=max_length,
            precision=precision,
            layers=layers,
            device=device_from(device),
            lora_rank=lora_rank,
            lora_fa=lora_fa,
            seed=seed,
            report=report,
            owners=owners,
            lean=lean or (),
            budget_of=budget_of,
            min_rows=min_rows,
        )
    show(result, lines=memory_sentences(result), files=(out / "memory.json", out / "memory.png"))
