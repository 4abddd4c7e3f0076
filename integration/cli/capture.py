"""`wtacrs capture`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import (
    BatchSizeOption,
    LayersOption,
    LearningRateOption,
    MaxLengthOption,
    SeedOption,
)
from wtacrs.integration.cli.output import progress_bar, show
from wtacrs.integration.cli.subject_options import with_subject
from wtacrs.integration.training.defaults import LEARNING_RATE

if TYPE_CHECKING:
    from wtacrs.integration.models.opening import Subject


@app.command()
@with_subject()
def capture(
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write (safetensors).")] = Path(
        "runs/captures.safetensors"
    ),
    *,
    subject: Subject,
    batches: Annotated[int, typer.Option(min=1, help="Number of batches.")] = 1,
    batch_size: BatchSizeOption = 32,
    max_length: MaxLengthOption = 128,
    by_length: Annotated[
        bool, typer.Option("--by-length", help="Sort the examples by length, as training does: little padding.")
    ] = False,
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
    lr: LearningRateOption = LEARNING_RATE,
    seed: SeedOption = 0,
) -> None:
    """Save x, dy and the padding mask of every linear layer of a model on training batches.

    With --after the model is first trained on other examples of the task, by --lr.
    """
    from wtacrs.integration.studies.capture import capture_study

    with progress_bar("capturing") as report:
        found = capture_study(
            subject,
            out,
            batches=batches,
            batch_size=batch_size,
            max_length=max_length,
            by_length=by_length,
            layers=layers,
            after=after,
            age=age,
            lr=lr,
            seed=seed,
            report=report,
        )
    from wtacrs.validation.records.base import counted

    size, padding = found.path.stat().st_size, found.padding
    told = (
        f"{counted(len(found.layers), 'layer')}, {counted(batches, 'batch', 'batches')}, {size / 2**20:.1f} MiB, "
        f"{padding:.0%} of the rows are padding"
    )
    described = {
        "file": str(found.path),
        "layers": list(found.layers),
        "batches": batches,
        "bytes": size,
        "padding": padding,
    }
    show(described, tables=(), lines=(told,), files=(found.path,))
