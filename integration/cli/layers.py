"""`wtacrs layers`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wtacrs.estimators import InputError
from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import (
    BatchSizeOption,
    LayersOption,
    MaxLengthOption,
    MinRowsOption,
    SeedOption,
)
from wtacrs.integration.cli.output import show
from wtacrs.integration.cli.subject_options import with_subject

if TYPE_CHECKING:
    from wtacrs.integration.models.opening import Subject


@app.command(dry=False)
@with_subject(without=("model", "tokenizer", "train_limit", "dev_limit"))
def layers(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|DIR",
            help="Hugging Face model: a hub name, a local folder, or new:bert and the like. Repeatable. Default: "
            "the small new T5 and all that new: can build.",
        ),
    ] = None,
    lora_rank: Annotated[
        int | None, typer.Option(help="With adapters of this rank (LoRA), as `wtacrs finetune` trains them.")
    ] = None,
    only: LayersOption = None,
    lean: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS",
            help="Show instead what `lean_` makes of every module with these options, what stays stock, and why: "
            "neighbours, attention, head and so on, as for `wtacrs finetune`.",
        ),
    ] = None,
    *,
    subject: Subject,
    batch_size: BatchSizeOption = 32,
    max_length: MaxLengthOption = 128,
    min_rows: MinRowsOption = 0,
    seed: SeedOption = 0,
) -> None:
    """Show which layers of a model are estimated, which stay exact, and why; or, with --lean, what keeps less.

    Runs one batch through the model, to find layers that are never called or get few numbers; with --lean none.
    """
    from wtacrs.integration.studies.layers import coverage_study, lean_study
    from wtacrs.integration.tables.layers import coverage_table
    from wtacrs.integration.tables.lean_layers import lean_table

    if lean is not None:
        if only:
            raise InputError("--layers chooses layers that are estimated; --lean looks at all modules")
        if min_rows:
            raise InputError(
                f"--min-rows {min_rows} is for layers that are estimated; --lean looks at all modules"
            )
        parts = list(
            lean_study(
                model or [],
                lean,
                subject,
                lora=lora_rank,
                batch_size=batch_size,
                max_length=max_length,
                seed=seed,
            )
        )
        show(_described(parts), tables=[lean_table(*part) for part in parts])
        return
    found = list(
        coverage_study(
            model or [],
            subject,
            lora=lora_rank,
            layers=only,
            batch_size=batch_size,
            max_length=max_length,
            min_rows=min_rows,
            seed=seed,
        )
    )
    show(_described(found), tables=[coverage_table(*one) for one in found])


def _described(models: Iterable[tuple[str, Sequence[Any]]]) -> list[dict[str, Any]]:
    return [{"model": name, "modules": [asdict(part) for part in parts]} for name, parts in models]
