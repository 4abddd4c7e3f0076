"""`wtacrs compare`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from wtacrs.estimators import InputError
from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import (
    AnyScoresOption,
    BudgetsOption,
    CapturesArgument,
    DeviceOption,
    DrawsOption,
    EstimatorsOption,
    JobsOption,
    LayersOption,
    OutOption,
    SchedulerOption,
    SeedOption,
    budgets_from,
    device_from,
    scores_from,
)
from wtacrs.integration.cli.output import progress_bar, show, warn_skipped


@app.command()
def compare(
    captures: CapturesArgument,
    compared: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SPEC|PATH.py:NAME]...",
            help="What to compare: as --estimator, or a product or layer as `wtacrs check` takes it.",
        ),
    ] = None,
    estimator: EstimatorsOption = None,
    budget: BudgetsOption = None,
    share: Annotated[
        list[float] | None,
        typer.Option(
            "--bytes",
            metavar="S",
            help="Equal bytes: the largest size that fits this share of the bf16 bytes. Repeatable.",
        ),
    ] = None,
    combinations: Annotated[
        bool, typer.Option("--combinations", help="At equal bytes: all combinations of parts, to see which pay.")
    ] = False,
    layers: LayersOption = None,
    scores: AnyScoresOption = None,
    steps: Annotated[int, typer.Option(min=1, help="T of the error of the mean of T steps.")] = 100,
    draws: DrawsOption = 32,
    out: OutOption = Path("runs/compare"),
    seed: SeedOption = 0,
    jobs: JobsOption = 1,
    scheduler: SchedulerOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Compare bias, variance, error over steps, cosine, bytes and MACs of estimators on captured layers.

    Of somebody else's products and layers, bytes and time are measured beside those of the estimators at equal rows.
    --budget compares at equal rows. Without it and --bytes: at 5 budgets and at 10 % and 30 % of the bytes. Finished
    parts are kept in the folder until the result is written: run the same command again to continue.
    """
    from wtacrs.estimators.core.references import is_reference
    from wtacrs.integration.cli.their_output import printing_to
    from wtacrs.integration.studies.compare import candidates_of, comparison_study
    from wtacrs.validation.files import check_folder
    from wtacrs.validation.layers.candidates import RECOMMENDED
    from wtacrs.validation.layers.captures import load_captures
    from wtacrs.validation.layers.equal_bytes import COMBINATIONS
    from wtacrs.validation.runner import Runner

    if combinations and not share:
        raise InputError(
            "--combinations are compared at equal bytes: name a share with --bytes, as in --bytes 0.1"
        )
    texts, place = [*(compared or ()), *(estimator or ())], device_from(device)
    if budget and not share and (made_for_bytes := [text for text in texts if text in RECOMMENDED]):
        fraction = next((text for text in budget if "." in text), "0.3")
        raise InputError(
            f"{made_for_bytes[0]} with --budget {budget[0]}: it is made for a share of the bytes, not of the rows: say "
            f"--bytes {fraction}"
        )
    kinds = None if scores is None else scores_from(scores)
    opened = load_captures(captures)
    check_folder("out", out)
    theirs = any(is_reference(text) for text in texts)
    with (
        progress_bar("comparing") as report,
        printing_to(out / "compare.log") if theirs else nullcontext() as printed,
    ):
        candidates = candidates_of(texts, budgets_from(budget), share, COMBINATIONS if combinations else ())
        result = comparison_study(
            opened,
            candidates,
            out,
            layers=layers,
            scores=kinds,
            steps=steps,
            draws=draws,
            seed=seed,
            device=place,
            runner=Runner(jobs, scheduler, out, report, warn_skipped),
        )
    figures = ("comparison", "oracle_ratio")
    show(result, files=(out / "comparison.json", *(out / f"{name}.png" for name in figures)))
    if printed is not None:
        printed.name_it()
