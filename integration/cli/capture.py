"""`wtacrs capture`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    progress_bar,
    wrote,
)

if TYPE_CHECKING:
    pass


@app.command()
def capture(
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write (safetensors).")] = Path(
        "runs/captures.safetensors"
    ),
    task: TaskOption = "docstrings",
    data: DataOption = None,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    batches: Annotated[int, typer.Option(min=1, help="Number of batches.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per batch.")] = 32,
    max_length: Annotated[int, typer.Option(min=2, help="Longest input, in tokens.")] = 128,
    layers: LayersOption = None,
    after: Annotated[
        int | None, typer.Option(min=1, metavar="STEPS", help="First train exactly for so many steps.")
    ] = None,
    age: Annotated[
        int | None,
        typer.Option(
            metavar="A", help="Also save the norms that dY had A steps earlier (A ≤ STEPS): stale scores."
        ),
    ] = None,
    lr: Annotated[float, typer.Option(help="Learning rate of that training; small new models bear 1e-3.")] = 3e-4,
    seed: SeedOption = 0,
) -> None:
    """Save x, dy and the padding mask of every linear layer of a model on training batches.

    With --after the model is first trained on other examples of the task.
    """
    from wtacrs.integration.studies.commands import capture_command

    with progress_bar("capturing") as report:
        found = capture_command(
            out,
            task,
            data,
            model,
            tokenizer,
            batches,
            batch_size,
            max_length,
            layers,
            seed,
            report,
            after=after,
            age=age,
            lr=lr,
        )
    console.print(f"{len(found.layers)} layers, {batches} batches, {found.path.stat().st_size / 2**20:.1f} MiB")
    wrote(found.path)
