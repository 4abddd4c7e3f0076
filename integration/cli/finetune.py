"""`wtacrs finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wtacrs.estimators import InputError
from wtacrs.integration.cli.app import app, given_names
from wtacrs.integration.cli.options import (
    BatchSizeOption,
    BudgetOfOption,
    EstimatorOption,
    LayersOption,
    LeanOption,
    LearningRateOption,
    LoraFaOption,
    LoraRankOption,
    MaxLengthOption,
    MinRowsOption,
    ReplaceOption,
    ResumeOption,
    RunOption,
    SeedOption,
    spec_from,
)
from wtacrs.integration.cli.output import console, show
from wtacrs.integration.cli.subject_options import SUBJECT_OPTIONS, subject_from, with_subject
from wtacrs.integration.training.defaults import LEARNING_RATE

if TYPE_CHECKING:
    from wtacrs.integration.models.opening import Subject
    from wtacrs.integration.training.config import FinetuneConfig
    from wtacrs.validation.records.receipt import Receipt


@app.command()
@with_subject(without=())
def finetune(
    context: typer.Context,
    estimator: EstimatorOption = "wta_crs(budget=0.3)",
    plan: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A plan of `wtacrs plan`, in place of one estimator for all layers."),
    ] = None,
    scores: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="What rows are sampled by: 'row-norms', or these times gradient norms 'last-seen' for the same example "
            "and token, their running average 'by-token' or 'by-position', or what is 'learned' to follow from the row.",
        ),
    ] = "row-norms",
    mask_floor: Annotated[
        float, typer.Option(help="Share of the budget that rows keep which a mask calls padding.")
    ] = 0.01,
    budget_of: BudgetOfOption = "all-rows",
    min_rows: MinRowsOption = 0,
    masked_gradient: Annotated[
        str,
        typer.Option(
            help="Where such rows carry gradient: warn (and use no mask in that layer), raise or ignore."
        ),
    ] = "warn",
    *,
    subject: Subject,
    out: RunOption = Path("runs/finetune"),
    epochs: Annotated[float, typer.Option(help="Passes over the training examples.")] = 3.0,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps, instead of epochs.")] = None,
    batch_size: BatchSizeOption = 32,
    accumulation: Annotated[int, typer.Option(min=1, help="Forward passes per optimizer step.")] = 1,
    lean: LeanOption = None,
    layers: LayersOption = None,
    lora_rank: LoraRankOption = None,
    lora_alpha: Annotated[
        float | None, typer.Option(help="Adapters count alpha / rank; default twice the rank.")
    ] = None,
    lora_fa: LoraFaOption = False,
    lr: LearningRateOption = LEARNING_RATE,
    optimizer: Annotated[str, typer.Option(help="adamw, sgd (momentum 0.9) or adafactor.")] = "adamw",
    schedule: Annotated[str, typer.Option(help="linear or cosine, both to 0, or constant.")] = "linear",
    warmup: Annotated[float, typer.Option(help="Fraction of the steps over which the rate rises.")] = 0.06,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW, for matrices only.")] = 0.01,
    clip: Annotated[float, typer.Option(help="Largest norm of the gradient; 0 for no clipping.")] = 1.0,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 or fp16 for autocast.")] = "fp32",
    max_length: MaxLengthOption = 128,
    eval_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between evaluations; default one epoch.")
    ] = None,
    save_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between saved states; default one epoch.")
    ] = None,
    resume: ResumeOption = False,
    overwrite: ReplaceOption = False,
    baseline_steps: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Exact steps that are timed before, and not counted; 0 for no comparison."
        ),
    ] = 3,
    tracker: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Tell a tracker of accelerate: wandb, mlflow, comet_ml … Repeatable."),
    ] = None,
    tensorboard: Annotated[
        bool,
        typer.Option("--tensorboard", help="Write event files too; needs `pip install 'wtacrs[tensorboard]'`."),
    ] = False,
    fsdp: Annotated[
        bool, typer.Option("--fsdp", help="Cut the model into pieces over the processes; else each has a copy.")
    ] = False,
    seed: SeedOption = 0,
) -> None:
    """Fine-tune a model on a task with an estimated weight gradient.

    Evaluates a T5 by greedy generation. --resume --out DIR continues a run that was interrupted or killed, with the
    settings it had, and gives the result that it would have had.

    Under torchrun or accelerate launch (torchrun --nproc-per-node 2 -m wtacrs.integration.cli finetune …) several
    processes share every batch of --batch-size examples.
    """
    from wtacrs.integration.layers.planned import load_plan
    from wtacrs.integration.parallel.environment import is_main_process
    from wtacrs.integration.studies.finetune import finetune_study
    from wtacrs.integration.training.config import FinetuneConfig
    from wtacrs.validation.masked_gradient import masked_gradient_sentence
    from wtacrs.validation.summaries.training import cost_lines

    options: dict[str, Any] = {
        "estimator": None if plan is not None else spec_from(estimator),
        "plan": None if plan is None else load_plan(plan).does,
        "scores": scores,
        "mask_floor": mask_floor,
        "budget_of": budget_of,
        "min_rows": min_rows,
        "masked_gradient": masked_gradient,
        "epochs": epochs,
        "steps": steps,
        "batch_size": batch_size,
        "accumulation": accumulation,
        "lean": lean,
        "layers": layers,
        "lora_rank": lora_rank,
        "lora_alpha": lora_alpha,
        "lora_fa": lora_fa,
        "lr": lr,
        "optimizer": optimizer,
        "schedule": schedule,
        "warmup": warmup,
        "weight_decay": weight_decay,
        "clip": clip or None,
        "precision": precision,
        "max_length": max_length,
        "eval_every": eval_every,
        "save_every": save_every,
        "seed": seed,
        "out": out,
        "resume": resume,
        "baseline_steps": baseline_steps,
        "trackers": tuple(tracker or ()),
        "tensorboard": tensorboard,
        "fsdp": fsdp,
    }
    config = FinetuneConfig(**options)
    if resume and not overwrite:
        config, subject = _resumed(options, context)
    result = finetune_study(config, subject, overwrite=overwrite, on_receipt=_print_receipt)
    if is_main_process():
        told = masked_gradient_sentence(result.masked_gradient)
        lines = [*cost_lines(result), *([] if told is None else [told])]
        files = (out / "result.json", out / "metrics.jsonl", out / "best")
        show(result, lines=lines, files=files)


def _resumed(options: dict[str, Any], context: typer.Context) -> tuple[FinetuneConfig, Subject]:
    """Settings of the run in the folder, with what was given beside; `finetune` refuses what makes another run of it."""
    from wtacrs.integration.training.config import FinetuneConfig
    from wtacrs.integration.training.run_settings import load_settings

    folder = options["out"]
    stored = load_settings(folder)
    given = given_names(context)
    names = stored.options()
    config = stored.config | {name: value for name, value in options.items() if name in given} | {"out": folder}
    if "tracker" in given:
        config["trackers"] = options["trackers"]
    named = {name: value for name, value in context.params.items() if name in SUBJECT_OPTIONS and name in given}
    for name in ("model", "tokenizer"):
        if name in named and str(named[name]) not in (names.get(name), str(Path(named[name]).absolute())):
            raise InputError(f"resume: --{name} {named[name]}: the run in {folder} has {names.get(name, 'none')}")
    return FinetuneConfig(**(config | {"resume": True})), subject_from(names | named)


def _print_receipt(receipt: Receipt) -> None:
    from wtacrs.validation.records.receipt import receipt_lines

    for line in receipt_lines(receipt):
        console.print(line, highlight=False, markup=False)
