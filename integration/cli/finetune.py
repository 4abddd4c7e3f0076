"""`wtacrs finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    wrote,
)


@app.command()
def finetune(
    estimator: Annotated[
        str, typer.Option(metavar="SPEC", help="Estimator of dW; 'exact' for ordinary training.")
    ] = "wta_crs(budget=0.3)",
    scores: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="What rows are sampled by: 'row-norms', or these times gradient norms 'last-seen' for the same example "
            "and token, or their running average 'by-token' or 'by-position'.",
        ),
    ] = "row-norms",
    task: TaskOption = "docstrings",
    data: DataOption = None,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run.")] = Path("runs/finetune"),
    epochs: Annotated[float, typer.Option(help="Passes over the training examples.")] = 3.0,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps, instead of epochs.")] = None,
    batch_size: Annotated[int, typer.Option(help="Examples per forward pass, of all processes together.")] = 32,
    accumulation: Annotated[int, typer.Option(help="Forward passes per optimizer step.")] = 1,
    layers: LayersOption = None,
    lora_rank: Annotated[
        int | None, typer.Option(help="Train adapters of this rank (LoRA) instead; `pip install 'wtacrs[peft]'`.")
    ] = None,
    lora_alpha: Annotated[
        float | None, typer.Option(help="Adapters count alpha / rank; default twice the rank.")
    ] = None,
    lora_fa: Annotated[bool, typer.Option("--lora-fa", help="Freeze A of every adapter; B alone trains.")] = False,
    lr: Annotated[float, typer.Option(help="Peak learning rate of AdamW.")] = 3e-4,
    schedule: Annotated[str, typer.Option(help="linear or cosine, both to 0, or constant.")] = "linear",
    warmup: Annotated[float, typer.Option(help="Fraction of the steps over which the rate rises.")] = 0.06,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW, for matrices only.")] = 0.01,
    clip: Annotated[float, typer.Option(help="Largest norm of the gradient; 0 for no clipping.")] = 1.0,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 for autocast.")] = "fp32",
    max_length: Annotated[int, typer.Option(help="Longest input, in tokens.")] = 128,
    eval_every: Annotated[int | None, typer.Option(help="Steps between evaluations; default one epoch.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between saved states; default one epoch.")] = None,
    train_limit: Annotated[int | None, typer.Option(help="Use only so many training examples.")] = None,
    dev_limit: Annotated[int | None, typer.Option(help="Use only so many dev examples.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
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

    A T5 is evaluated by what it writes, by greedy generation. A run that was interrupted, killed even, ends with
    --resume as it would have ended.

    Under torchrun or accelerate launch (torchrun --nproc-per-node 2 -m wtacrs.integration.cli finetune …) several
    processes share every batch: --batch-size and --steps mean what they mean in one.
    """
    from wtacrs.integration.parallel.processes import is_main_process
    from wtacrs.integration.studies.commands import finetune_command
    from wtacrs.integration.tables.training import training_table
    from wtacrs.integration.training.config import FinetuneConfig

    options: dict[str, Any] = {
        "estimator": None if estimator == "exact" else estimator,
        "scores": scores,
        "epochs": epochs,
        "steps": steps,
        "batch_size": batch_size,
        "accumulation": accumulation,
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
    result = finetune_command(
        FinetuneConfig(**options),
        task,
        data,
        model,
        tokenizer,
        train_limit=train_limit,
        dev_limit=dev_limit,
        overwrite=overwrite,
    )
    if is_main_process():
        console.print(training_table([result]))
        wrote(out / "result.json", out / "metrics.jsonl", out / "best")
