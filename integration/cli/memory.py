"""`wtacrs memory`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.integration.cli.app import (
    DataOption,
    LayersOption,
    ModelOption,
    SeedOption,
    TaskOption,
    TokenizerOption,
    app,
    console,
    device_from,
    progress_bar,
    wrote,
)


@app.command()
def memory(
    estimator: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC", help="Estimator of dW. Repeatable; default wta_crs(budget=0.3)."),
    ] = None,
    task: TaskOption = "docstrings",
    data: DataOption = None,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per forward pass.")] = 32,
    max_length: Annotated[int, typer.Option(help="Longest input, in tokens.")] = 128,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 for autocast.")] = "fp32",
    layers: LayersOption = None,
    lora_rank: Annotated[int | None, typer.Option(help="With adapters of this rank on the layers.")] = None,
    lora_fa: Annotated[bool, typer.Option("--lora-fa", help="Freeze A of every adapter.")] = False,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1 …")] = "cpu",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the result.")] = Path("runs/memory"),
    seed: SeedOption = 0,
) -> None:
    """What one training step keeps for its backward pass, by type of layer.

    Exact, with estimators, with activation checkpointing, and with both; measured, not computed.
    """
    from wtacrs.integration.studies.memory import memory_command
    from wtacrs.integration.tables.memory import memory_table
    from wtacrs.validation.records.memory import memory_sentences

    with progress_bar("memory") as report:
        result = memory_command(
            estimator or ["wta_crs(budget=0.3)"],
            task,
            data,
            model,
            tokenizer,
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
        )
    console.print(memory_table(result))
    for sentence in memory_sentences(result):
        console.print(sentence, highlight=False, markup=False)
    wrote(out / "memory.json")
