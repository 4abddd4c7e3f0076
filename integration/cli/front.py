"""`wtacrs study front`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.integration.cli.options import DeviceOption, OutOption, PrecisionOption, SeedOption, device_from
from wtacrs.integration.cli.output import progress_bar, show
from wtacrs.integration.cli.study import study


@study.command()
def front(
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|DIR|FILE",
            help="A published size such as t5-base, a checkpoint's folder, or its config.json.",
        ),
    ] = "t5-base",
    layers: Annotated[int | None, typer.Option(min=1, help="Blocks of encoder and decoder; default all.")] = 4,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples.")] = 8,
    length: Annotated[int, typer.Option(min=1, help="Tokens of an input.")] = 128,
    target_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of an answer of an encoder–decoder; default as an input.")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Everywhere; default as the model says.")] = None,
    precision: PrecisionOption = "fp32",
    compiled: Annotated[
        bool,
        typer.Option("--compiled", help="Measure torch's compiler with a memory budget too; it takes minutes."),
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of timing, in which ways take turns.")] = 5,
    batches: Annotated[int, typer.Option(min=2, help="Batches whose gradients scatter.")] = 4,
    draws: Annotated[int, typer.Option(min=1, help="Draws of every estimator.")] = 2,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    device: DeviceOption = "cpu",
    out: OutOption = Path("runs/front"),
    seed: SeedOption = 0,
) -> None:
    """Measure a training step in many ways: bytes kept, peak, time, and the noise added to the gradient.

    Compares stock, LoRA, checkpointing, sampling, lean neighbours, and all of these together, and decomposes the saving.
    """
    import torch

    from wtacrs.integration.studies.front import front_study

    torch.set_num_threads(threads)
    with progress_bar("ways to take a step") as report:
        result = front_study(
            model,
            out,
            layers=layers,
            batch_size=batch_size,
            length=length,
            target_length=target_length,
            dropout=dropout,
            precision=precision,
            compiled=compiled,
            rounds=rounds,
            batches=batches,
            draws=draws,
            device=device_from(device),
            seed=seed,
            report=report,
        )
    show(result, files=(out / "front.json", out / "front.png", out / "saving.png"))
