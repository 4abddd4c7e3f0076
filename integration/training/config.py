"""What a fine-tuning run depends on, checked before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wtacrs.estimators import make
from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.models.lora import require_peft
from wtacrs.integration.score_memory.kinds import TRAINING_SCORES, known_training_scores
from wtacrs.integration.training.event_log import require_tensorboard

Schedule = Literal["linear", "cosine", "constant"]


class FinetuneConfig(BaseModel):
    """All that a run depends on besides task, model and tokenizer; checked when it is made (`InputError`).

    `steps` (optimizer steps), if given, overrides `epochs`. One step averages `accumulation` batches of
    `batch_size` examples. `lr` is reached after a share `warmup` of the steps and then falls in a straight line
    ("linear") or a half wave ("cosine") to 0, or stays ("constant"). `clip` is the largest gradient norm, None for no
    clipping. `precision` "bf16" runs the model under autocast; parameters stay fp32. `max_length` counts tokens.
    `estimator` is a spec such as "wta_crs(budget=0.3)" for the linear layers, None for exact training; `layers` are
    patterns of the names of those that are converted (`*`, `?`, `[]`), None for all; `scores` what their rows are
    sampled by (see `approximate_`). With a `lora_rank` the model is frozen and adapters of this rank are trained
    (`wtacrs.integration.models.lora`), by `layers` those of the named layers; the estimator is then of theirs. `lora_alpha` is
    2 · `lora_rank` if None; `lora_fa` freezes A, so that only B is trained.
    `eval_every` and `save_every` count steps; evaluation is once per epoch if None, and the state to resume from
    is always saved at the start and at the end of an epoch. Without `out` nothing is written; `resume` goes on from what
    is there. Without `keep_weights` there are no model folders, and once the run is over its state holds results alone.
    `tensorboard` writes event files beside the other metrics (see `wtacrs.integration.training.event_log`). `fsdp` cuts the model
    into pieces over the processes (FSDP2) instead of giving each a copy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: float = 3.0
    steps: int | None = None
    batch_size: int = 32
    accumulation: int = 1
    lr: float = 1e-3
    warmup: float = 0.06
    schedule: Schedule = "linear"
    weight_decay: float = 0.01
    clip: float | None = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    max_length: int = 128
    estimator: str | None = None
    scores: str = "row-norms"
    layers: tuple[str, ...] | None = None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    lora_fa: bool = False
    seed: int = Field(0, ge=0)
    eval_every: int | None = None
    save_every: int | None = None
    out: Path | None = None
    resume: bool = False
    tensorboard: bool = False
    keep_weights: bool = True
    fsdp: bool = False

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "config"
            given = "" if first["type"] in ("missing", "extra_forbidden") else f"={first['input']!r}"
            message = first["msg"].removeprefix("Value error, ")
            raise InputError(message if not first["loc"] else f"{where}{given}: {message}") from None

    @field_validator("epochs", "lr", "clip", "lora_alpha")
    @classmethod
    def _positive(cls, value: float | None) -> float | None:
        if value is not None and value <= 0:
            raise ValueError("must be greater than 0")
        return value

    @field_validator("steps", "batch_size", "accumulation", "max_length", "eval_every", "save_every", "lora_rank")
    @classmethod
    def _at_least_one(cls, value: int | None) -> int | None:
        if value is not None and value < 1:
            raise ValueError("must be at least 1")
        return value

    @field_validator("warmup", "weight_decay")
    @classmethod
    def _share(cls, value: float) -> float:
        if not 0 <= value < 1:
            raise ValueError("must be in [0, 1)")
        return value

    @field_validator("estimator")
    @classmethod
    def _spec(cls, value: str | None) -> str | None:
        return None if value is None else repr(make(value))

    @field_validator("precision")
    @classmethod
    def _supported(cls, value: str) -> str:
        if value == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
            raise ValueError(f"{torch.cuda.get_device_name()} has no bf16; fp32 is accepted")
        return value

    @field_validator("scores")
    @classmethod
    def _known_scores(cls, value: str) -> str:
        if value not in TRAINING_SCORES:
            raise ValueError(f"must be {known_training_scores()}")
        return value

    @model_validator(mode="after")
    def _scores_need_an_estimator(self) -> FinetuneConfig:
        if self.scores != "row-norms" and self.estimator is None:
            raise ValueError(
                f"scores={self.scores!r} need an estimator that samples by them; exact training has none"
            )
        return self

    @model_validator(mode="after")
    def _lora(self) -> FinetuneConfig:
        if self.lora_rank is not None and self.fsdp:
            raise ValueError(
                "fsdp=True with lora_rank: adapters are merged of whole weights, which no process has"
            )
        if self.lora_rank is not None:
            require_peft()
        elif self.lora_alpha is not None:
            raise ValueError(f"lora_alpha={self.lora_alpha} needs lora_rank")
        elif self.lora_fa:
            raise ValueError("lora_fa=True needs lora_rank")
        return self

    @model_validator(mode="after")
    def _needs_out(self) -> FinetuneConfig:
        if self.resume and self.out is None:
            raise ValueError("resume=True needs out, the folder of the run that goes on")
        if self.tensorboard and self.out is None:
            raise ValueError("tensorboard=True needs out, the folder of the run")
        if self.tensorboard:
            require_tensorboard()
        return self

    @property
    def method(self) -> str:
        """How dW is computed, and of what, in a few words."""
        kind = "LoRA-FA" if self.lora_fa else "LoRA"
        adapters = "" if self.lora_rank is None else f"{kind} {self.lora_rank}, "
        return f"{adapters}{self.estimator or 'exact'}"

    def but(self, **changes: Any) -> FinetuneConfig:
        """The same with some fields changed, checked anew."""
        return FinetuneConfig(**(self.model_dump() | changes))

    def identity(self) -> dict[str, Any]:
        """What must be equal for a run to be resumed: all that its results depend on."""
        left_out = {"out", "resume", "save_every", "tensorboard", "keep_weights", "fsdp"}
        return self.model_dump(mode="json", exclude=left_out)


DEMO = FinetuneConfig(steps=900, batch_size=32, lr=1e-3, warmup=0.06, max_length=48, eval_every=150)
"""Settings with which the embedded T5 learns the `docstrings` task in under a minute on two cores."""
