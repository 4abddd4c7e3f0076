"""`wtacrs plan`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wtacrs.estimators import InputError
from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import (
    BatchSizeOption,
    DeviceOption,
    LoraRankOption,
    MaxLengthOption,
    OutOption,
    PrecisionOption,
    SeedOption,
    device_from,
)
from wtacrs.integration.cli.output import progress_bar, show
from wtacrs.integration.cli.subject_options import with_subject

if TYPE_CHECKING:
    from wtacrs.integration.models.opening import Subject
    from wtacrs.validation.records.plan import Rates


@app.command()
@with_subject()
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
            metavar="SPEC",
            help="Estimators that blocks may have. Repeatable; default wta_crs at 6 budgets, 3 with --simulate.",
        ),
    ] = None,
    lean: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORDS",
            help="How blocks may be lean, as in 'attention'. Repeatable; default neighbours, attention, attention-again.",
        ),
    ] = None,
    estimators_only: Annotated[
        bool,
        typer.Option(
            "--estimators-only", help="Blocks choose an estimator or none; nothing is lean or checkpointed."
        ),
    ] = False,
    kept_as: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Keep no more in the blocks than this estimator in all of them would, and compare.",
        ),
    ] = None,
    captured: Annotated[
        int, typer.Option(min=0, help="Batches that the noise is found on; 0 for a general law in its place.")
    ] = 4,
    costs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An earlier plan, whose costs are used again; nothing is measured."),
    ] = None,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate",
            help="Take no step: bytes from the model's config alone (as `wtacrs simulate`), times from a model of time.",
        ),
    ] = False,
    length: Annotated[
        int | None,
        typer.Option(min=1, help="With --simulate: tokens of an input. Default: --max-length."),
    ] = None,
    target_length: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --simulate: tokens of an answer of an encoder–decoder. Default: as the input."
        ),
    ] = None,
    flops_per_second: Annotated[
        float | None,
        typer.Option(
            help="With --simulate: of matrix products, as in 1e12. Default: as measured on this machine."
        ),
    ] = None,
    bytes_per_second: Annotated[
        float | None,
        typer.Option(help="With --simulate: of all other operations. Default: as measured on this machine."),
    ] = None,
    captures: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --simulate: captured layers of the model, for the noise."),
    ] = None,
    precision: PrecisionOption = "fp32",
    lora_rank: LoraRankOption = None,
    *,
    subject: Subject,
    batch_size: BatchSizeOption = 32,
    max_length: MaxLengthOption = 128,
    device: DeviceOption = "cpu",
    out: OutOption = Path("runs/plan"),
    seed: SeedOption = 0,
) -> None:
    """Choose for every block whether to sample it, make it lean or checkpoint it, within an amount of memory.

    Measures every choice on a batch of the task, or simulates it, and solves an integer program. `wtacrs finetune --plan`
    trains by it.
    """
    from wtacrs.integration.planning.choices import ESTIMATORS, FEW_ESTIMATORS, LEAN
    from wtacrs.integration.studies.plan import Limits, plan_study, simulated_plan_study
    from wtacrs.validation.records.plan import plan_sentences
    from wtacrs.validation.records.units import bytes_from

    ceiling = 1.0 if noise_ceiling is None and time_ceiling is None else noise_ceiling
    if estimators_only and lean:
        raise InputError(f"--estimators-only, --lean {lean[0]}: nothing is lean then")
    limits = Limits(bytes_from(memory, "--memory"), ceiling, time_ceiling, kept_as)
    ways: dict[str, Any] = {
        "batch_size": batch_size,
        "estimators": estimator or (FEW_ESTIMATORS if simulate else ESTIMATORS),
        "lean": lean or LEAN,
        "estimators_only": estimators_only,
        "precision": precision,
        "lora_rank": lora_rank,
    }
    apart = {
        "--length": length,
        "--target-length": target_length,
        "--flops-per-second": flops_per_second,
        "--bytes-per-second": bytes_per_second,
        "--captures": captures,
    }
    _check_source(simulate, costs, subject, {name: value for name, value in apart.items() if value is not None})
    with progress_bar("plan") as report:
        if simulate:
            assert subject.model is not None
            result = simulated_plan_study(
                subject.model,
                limits,
                out,
                length=max_length if length is None else length,
                target_length=target_length,
                rates=_rates(flops_per_second, bytes_per_second),
                captures=captures,
                report=report,
                **ways,
            )
        else:
            result = plan_study(
                subject,
                limits,
                out,
                max_length=max_length,
                captured=captured,
                costs=costs,
                device=device_from(device),
                seed=seed,
                report=report,
                **ways,
            )
    show(result, lines=plan_sentences(result), files=(out / "plan.json", out / "plan.png"))


def _check_source(simulate: bool, costs: Path | None, subject: Subject, apart: dict[str, object]) -> None:
    if not simulate and apart:
        raise InputError(f"{next(iter(apart))} is for --simulate alone")
    if simulate and costs is not None:
        raise InputError("--simulate, --costs: one of them says where costs come from")
    if subject.files is not None and (simulate or costs is not None):
        raise InputError(f"--train, {'--simulate' if simulate else '--costs'}: no examples are read with it")
    if simulate and subject.model is None:
        raise InputError("--simulate needs --model: a published size (t5-base …), a folder or a config.json")


def _rates(flops: float | None, moved: float | None) -> Rates | None:
    from wtacrs.validation.records.plan import Rates

    if flops is None and moved is None:
        return None
    if flops is None or moved is None:
        raise InputError("--flops-per-second, --bytes-per-second: give both, or none to measure them")
    for name, value in (("--flops-per-second", flops), ("--bytes-per-second", moved)):
        if not 0 < value < math.inf:
            raise InputError(f"{name}={value} must be a positive number")
    return Rates(flops=flops, bytes=moved, by="given")
