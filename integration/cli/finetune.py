"""`wtacrs finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import (
    BatchSizeOption,
    BudgetOfOption,
    DataOption,
    DevLimitOption,
    EstimatorOption,
    LayersOption,
    LeanOption,
    LearningRateOption,
    LoraFaOption,
    LoraRankOption,
    MaxLengthOption,
    MinRowsOption,
    ModelOption,
    PrecisionOption,
    ReplaceOption,
    ResumeOption,
    RunOption,
    SeedOption,
    TaskOption,
    TokenizerOption,
    TrainLimitOption,
    spec_from,
)
from wtacrs.integration.cli.output import console, show
from wtacrs.integration.training.defaults import LEARNING_RATE

if TYPE_CHECKING:
    from wtacrs.validation.records.receipt import Receipt


@app.command()
def finetune(
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
    task: TaskOption = "docstrings",
    data: DataOption = None,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
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
    schedule: Annotated[str, typer.Option(help="linear or cosine, both to 0, or constant.")] = "linear",
    warmup: Annotated[float, typer.Option(help="Fraction of the steps over which the rate rises.")] = 0.06,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW, for matrices only.")] = 0.01,
    clip: Annotated[float, typer.Option(help="Largest norm of the gradient; 0 for no clipping.")] = 1.0,
    precision: PrecisionOption = "fp32",
    max_length: MaxLengthOption = 128,
    eval_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between evaluations; default one epoch.")
    ] = None,
    save_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between saved states; default one epoch.")
    ] = None,
    train_limit: TrainLimitOption = None,
    dev_limit: DevLimitOption = None,
    resume: ResumeOption = False,
    overwrite: ReplaceOption = False,
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

    Evaluates a T5 by greedy generation. --resume continues a run that was interrupted or killed, and gives the result
    that it would have had.

    Under torchrun or accelerate launch (torchrun --nproc-per-node 2 -m wtacrs.integration.cli finetune …) several
    processes share every batch of --batch-size examples.
    """
    from wtacrs.integration.layers.planned import load_plan
    from wtacrs.integration.models.opening import Subject
    from wtacrs.integration.parallel.environment import is_main_process
    from wtacrs.integration.studies.finetune import finetune_study
    from wtacrs.integration.training.config import FinetuneConfig
    from wtacrs.validation.masked_gradient import masked_gradient_sentence

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
        "tensorboard": tensorboard,
        "fsdp": fsdp,
    }
    subject = Subject(task, data, model, tokenizer, train_limit, dev_limit)
    result = finetune_study(FinetuneConfig(**options), subject, overwrite=overwrite, on_receipt=_print_receipt)
    if is_main_process():
        told = masked_gradient_sentence(result.masked_gradient)
        files = (out / "result.json", out / "metrics.jsonl", out / "best")
        show(result, lines=() if told is None else (told,), files=files)


def _print_receipt(receipt: Receipt) -> None:
    from wtacrs.validation.records.receipt import receipt_lines

    for line in receipt_lines(receipt):
        console.print(line, highlight=False, markup=False)
