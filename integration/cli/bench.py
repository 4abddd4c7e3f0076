"""`wtacrs bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.estimators import InputError
from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import (
    DeviceOption,
    DrawsOption,
    LayersOption,
    LeanOption,
    MinRowsOption,
    OutOption,
    SeedOption,
    device_from,
    score_kind_from,
)
from wtacrs.integration.cli.output import progress_bar, show, warn_skipped


@app.command()
def bench(
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC[ at S]",
            help="As in 'crs(budget=0.3)', or 'recommended at 0.3': what fits 30 % of bf16's bytes. Repeatable.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every registered estimator, at 30 % of the rows or bytes.")
    ] = False,
    scores: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="What rows are sampled by: row-norms (default), oracle or stale."),
    ] = None,
    sizes: Annotated[
        str, typer.Option(metavar="NxDxM,…", help="Rows, columns of x and columns of dY, Gaussian.")
    ] = "4096x1024x1024,16384x1024x1024",
    captures: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Captured layers in place of Gaussian x and dY.")
    ] = None,
    layers: LayersOption = None,
    dtype: Annotated[str, typer.Option(metavar="NAME", help="Of x and dY: fp32, bf16, fp16 or fp64.")] = "fp32",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of timing, in which all take turns.")] = 9,
    draws: DrawsOption = 4,
    step: Annotated[
        bool,
        typer.Option("--step", help="Measure a whole training step too: exact, checkpointed, sampled by each."),
    ] = False,
    step_model: Annotated[
        str,
        typer.Option(
            metavar="NAME|DIR|FILE", help="Of the step, with random weights, as in `wtacrs study front`."
        ),
    ] = "t5-base",
    step_layers: Annotated[int, typer.Option(min=1, help="Blocks of encoder and decoder.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples of the step.")] = 32,
    length: Annotated[int, typer.Option(min=1, help="Tokens of an input of the step.")] = 128,
    target_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of an answer of an encoder–decoder's step; 8 by default.")
    ] = None,
    lean: LeanOption = None,
    min_rows: MinRowsOption = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    device: DeviceOption = "cpu",
    out: OutOption = Path("runs/bench"),
    seed: SeedOption = 0,
) -> None:
    """Measure time, bytes and variance of estimators beside the exact product, and how near the machine's roof they come.

    All take turns in every round. Kept bytes are shares of those of x in bf16, variances those of one estimate over ‖G‖²,
    and also over that of the paper's WTA-CRS at equal bytes.
    """
    import torch

    from wtacrs.integration.studies.bench import StepShape, bench_study, sizes_from
    from wtacrs.validation.benchmarks.bench import default_entries, entry_from, registered_entries
    from wtacrs.validation.layers.captures import load_captures

    kind = score_kind_from("row-norms" if scores is None else scores)
    if scores is not None and not (estimator or everything):
        raise InputError(f"--scores {scores!r} is for --estimator or --all: the default compares both kinds")
    if everything and estimator:
        raise InputError(f"--all names every estimator already: leave --estimator {estimator[0]!r} out")
    if everything:
        entries = registered_entries(kind)
    else:
        entries = [entry_from(text, kind) for text in estimator] if estimator else default_entries()
    if lean is not None and not step:
        raise InputError(
            f"--lean {lean!r} is for --step: neighbours of layers that are measured alone keep nothing"
        )
    if min_rows and not step:
        raise InputError(
            f"--min-rows {min_rows} is for --step: layers that are measured alone are never left exact"
        )
    shape = StepShape(step_model, step_layers, batch_size, length, target_length, lean=lean, min_rows=min_rows)
    torch.set_num_threads(threads)
    with progress_bar("benchmark") as report:
        result = bench_study(
            entries,
            out,
            sizes=sizes_from(sizes),
            captures=None if captures is None else load_captures(captures),
            layers=layers,
            precision=dtype,
            rounds=rounds,
            draws=draws,
            device=device_from(device),
            step=shape if step else None,
            seed=seed,
            report=report,
            skipped=warn_skipped,
        )
    show(result, files=(out / "bench.json", out / "bench.png", out / "bench_step.png"))
