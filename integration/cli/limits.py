"""`wtacrs study limits`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.integration.cli.options import OutOption
from wtacrs.integration.cli.output import progress_bar, show
from wtacrs.integration.cli.study import study


@study.command()
def limits(
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A T5 with ReLU, several times; default t5-small to t5-11b."),
    ] = None,
    base: Annotated[str, typer.Option(metavar="NAME", help="The one that grows.")] = "t5-base",
    rows: Annotated[float, typer.Option(help="Share of the rows that sampled layers keep, in (0, 1].")] = 0.1,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples, of curves and checks.")] = 64,
    length: Annotated[int, typer.Option(min=1, help="Tokens of an input.")] = 128,
    target_length: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 128,
    memory: Annotated[
        list[str] | None, typer.Option(metavar="BYTES", help="Of a device, several times; default 24GB and 80GB.")
    ] = None,
    simulated: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Models that are simulated beside the closed form; default all, “none” for none."
        ),
    ] = None,
    times: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="front.json of `study front`, for the time of a step of every way."),
    ] = None,
    out: OutOption = Path("runs/limits"),
) -> None:
    """Compute how far memory can fall as T5s grow, in closed form, checked by simulation; and the largest batch."""
    from wtacrs.integration.studies.limits import MEMORIES, MODELS, limits_study
    from wtacrs.validation.records.units import bytes_from
    from wtacrs.validation.runner import Runner

    chosen = None if simulated is None else [name for name in simulated if name != "none"]
    with progress_bar("simulated steps") as report:
        result = limits_study(
            out,
            models=model or MODELS,
            base=base,
            rows=rows,
            batch_size=batch_size,
            length=length,
            target_length=target_length,
            memories=[bytes_from(text, "--memory") for text in memory] if memory else MEMORIES,
            simulated=chosen,
            times=times,
            runner=Runner(report=report),
        )
    show(result, files=(out / "limits.json", out / "limits.png"))
