"""`wtacrs simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import LayersOption, LoraRankOption, OutOption
from wtacrs.integration.cli.output import progress_bar, show


@app.command(dry=False)
def simulate(
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|DIR|FILE", help="A published size (t5-base, llama-8b …), a folder, or a config.json."
        ),
    ] = "t5-base",
    batch_size: Annotated[int, typer.Option(min=1, help="Examples.")] = 32,
    length: Annotated[int, typer.Option(min=1, help="Tokens of an input.")] = 128,
    target_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of an answer of an encoder–decoder. Default: as the input.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, bf16 for autocast, or bf16-weights for weights and states too.")
    ] = "fp32",
    optimizer: Annotated[
        str, typer.Option(help="adamw, adamw-foreach (as on CUDA by default), sgd, adafactor or none.")
    ] = "adamw",
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC", help="Estimator of dW, or as in 'mine.py:Mine(budget=0.3)'. Repeatable; default exact."
        ),
    ] = None,
    lean: Annotated[
        str | None, typer.Option(metavar="WORDS", help="Lean neighbours: 'neighbours', or as in 'attention,head'.")
    ] = None,
    layers: LayersOption = None,
    lora_rank: LoraRankOption = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Recompute activations by blocks.")
    ] = False,
    offload: Annotated[
        bool, typer.Option("--offload", help="Keep what is saved for the backward pass on the host.")
    ] = False,
    all_ways: Annotated[
        bool,
        typer.Option("--all-ways", help="Simulate what `wtacrs study front` compares, in place of these options."),
    ] = False,
    max_batch: Annotated[
        str | None,
        typer.Option(metavar="BYTES", help="Find the largest batch that fits, as in 24GB (10⁹) or 80GiB (2³⁰)."),
    ] = None,
    out: OutOption = Path("runs/simulate"),
) -> None:
    """Tell what a training step needs, from the model's config alone: all bytes at its peak, and what they are.

    Simulates the stock step, and one for each estimator with the options. No weights are made, nothing is computed.
    """
    from wtacrs.integration.studies.simulate import simulate_steps
    from wtacrs.validation.records.simulation import simulation_sentences
    from wtacrs.validation.records.units import bytes_from

    budget = None if max_batch is None else bytes_from(max_batch, "--max-batch")
    with progress_bar("simulate") as report:
        result = simulate_steps(
            model,
            estimator or ["exact"],
            out,
            batch_size=batch_size,
            all_ways=all_ways,
            budget=budget,
            report=report,
            length=length,
            target_length=target_length,
            precision=precision,
            optimizer=optimizer,
            lean=False if lean is None else lean,
            layers=layers,
            lora_rank=lora_rank,
            checkpointing=checkpointing,
            offload=offload,
        )
    files = (out / "simulation.json", out / "simulation.png")
    show(result, lines=simulation_sentences(result), files=files)
