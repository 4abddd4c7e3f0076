"""`wtacrs pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wtacrs.integration.cli.app import SeedOption, app, console, wrote


@app.command()
def pretrain(
    corpus: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder with *train*.txt[.gz] and *valid*.txt[.gz].")
    ],
    tokenizer: Annotated[
        str, typer.Option(metavar="NAME|DIR", help="A vocabulary with sentinels, as T5's.")
    ] = "google-t5/t5-small",
    estimator: Annotated[
        str, typer.Option(metavar="SPEC", help="Estimator of dW; 'exact' for ordinary training.")
    ] = "exact",
    size: Annotated[str, typer.Option(help="demo, mini or small (t5-small's).")] = "demo",
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 1_000,
    batch_size: Annotated[int, typer.Option(help="Pieces of text per step.")] = 32,
    lr: Annotated[float, typer.Option(help="Peak learning rate of AdamW.")] = 1e-3,
    max_length: Annotated[int, typer.Option(help="Tokens of a corrupted input.")] = 128,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 for autocast.")] = "fp32",
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 500,
    train_limit: Annotated[int | None, typer.Option(min=1, help="Use only so many pieces of the text.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run.")] = Path("runs/pretrain"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    seed: SeedOption = 0,
) -> None:
    """Pre-train a new T5 by span corruption on a text, exactly or with an estimated weight gradient."""
    from wtacrs.integration.training.pretrain import PretrainingConfig
    from wtacrs.integration.training.pretrain import pretrain as run

    options: dict[str, Any] = {
        "estimator": None if estimator == "exact" else estimator,
        "size": size,
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "max_length": max_length,
        "precision": precision,
        "save_every": save_every,
        "train_limit": train_limit,
        "seed": seed,
    }
    result = run(
        PretrainingConfig(**options), corpus, tokenizer, out, resume=resume, overwrite=overwrite, progress=True
    )
    console.print(
        f"{result.parameters:,} parameters, {result.tokens:,} tokens in {result.seconds:.0f} s: validation loss "
        f"{result.valid_before:.3f} → {result.valid_after:.3f} nats per token ({result.estimator})"
    )
    wrote(out / "result.json", out / "model")
