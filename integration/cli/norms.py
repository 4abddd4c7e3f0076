"""`wtacrs study norms`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wtacrs.integration.cli.options import (
    AnewOption,
    BatchSizeOption,
    EstimatorOption,
    LearningRateOption,
    MaxLengthOption,
    OutOption,
    SaveEveryOption,
    SeedOption,
    StepsOption,
    spec_from,
)
from wtacrs.integration.cli.output import show
from wtacrs.integration.cli.study import study
from wtacrs.integration.cli.subject_options import with_subject
from wtacrs.integration.training.defaults import NEW_MODEL_LEARNING_RATE

if TYPE_CHECKING:
    from wtacrs.integration.models.opening import Subject


@study.command()
@with_subject(without=())
def norms(
    estimator: EstimatorOption = "wta_crs(budget=0.3)",
    layer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The layer. Default: first feed-forward projection of the last block."),
    ] = None,
    *,
    subject: Subject,
    steps: StepsOption = 300,
    batch_size: BatchSizeOption = 32,
    lr: LearningRateOption = NEW_MODEL_LEARNING_RATE,
    max_length: MaxLengthOption = 48,
    save_every: SaveEveryOption = 100,
    out: OutOption = Path("runs/norms"),
    overwrite: AnewOption = False,
    seed: SeedOption = 0,
) -> None:
    """Record gradient norms over training with one layer's dW estimated: used, exact and expected at every step."""
    from wtacrs.integration.studies.norms import norms_study
    from wtacrs.integration.training.config import FinetuneConfig
    from wtacrs.validation.files import check_folder

    config = FinetuneConfig(
        estimator=spec_from(estimator),
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        max_length=max_length,
        eval_every=steps,
        save_every=save_every,
        seed=seed,
    )
    check_folder("out", out)
    result = norms_study(subject, config, out, layer=layer, overwrite=overwrite, progress=True)
    show(result, files=(out / "gradient_norms.json", out / "gradient_norms.png"))
