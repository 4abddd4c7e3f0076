"""What a fine-tuning run depends on, checked before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wtacrs.estimators import make
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.mask_floor import MASK_FLOOR
from wtacrs.integration.context.mask_watch import MaskedGradient
from wtacrs.integration.layers.estimated_weight_grad import BudgetOf
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.integration.models.lora import require_peft
from wtacrs.integration.score_memory.kinds import TRAINING_SCORES, known_training_scores
from wtacrs.integration.training.defaults import LEARNING_RATE, NEW_MODEL_LEARNING_RATE
from wtacrs.integration.training.tensorboard import require_tensorboard
from wtacrs.integration.training.trackers import require_tracker
from wtacrs.validation.arguments import shown, without_prefixes
from wtacrs.validation.records.base import counted, with_lean
from wtacrs.validation.records.plan import BlockChoices
from wtacrs.validation.seeds import ACCEPTED_SEEDS, is_seed

Schedule = Literal["linear", "cosine", "constant"]
OptimizerName = Literal["adamw", "sgd", "adafactor"]


_NUMBERS = (
    "epochs", "steps", "batch_size", "accumulation", "lr", "warmup", "weight_decay", "clip", "max_length", "mask_floor",
    "min_rows", "lora_rank", "lora_alpha", "eval_every", "eval_from", "save_every", "baseline_steps",
)  # fmt: skip


class FinetuneConfig(BaseModel):
    """All that a run depends on besides task, model and tokenizer; checked when it is made.

    Attributes:
        epochs: passes over the training examples.
        steps: optimizer steps; overrides `epochs`.
        batch_size: examples per forward pass, of all processes together.
        accumulation: batches whose mean is one step.
        lr: peak learning rate of the optimizer.
        optimizer: "adamw"; "sgd" with momentum 0.9; or "adafactor" with the given rate, without momentum.
        warmup: share of the steps over which the rate rises.
        schedule: how it falls to 0 after that, "linear" or "cosine"; "constant" keeps it.
        weight_decay: of matrices; biases and norms have none.
        clip: largest gradient norm; None for no clipping.
        precision: "bf16" and "fp16" run the model under autocast; parameters stay fp32. In fp16 the loss is multiplied by
            a factor that falls where gradients are not finite; such a step is left out.
        max_length: longest input, in tokens.
        estimator: spec for the linear layers, such as "wta_crs(budget=0.3)"; None for exact training.
        plan: what is done with every block, in place of an estimator for all layers (`load_plan(path).does`).
        scores: what rows are sampled by (see `approximate_`).
        mask_floor: the share of the budget that rows called padding keep (see `approximate_`).
        budget_of: "all-rows" or "live-rows": what a budget is a share of (see `approximate_`).
        min_rows: layers whose inputs have fewer rows than this stay exact.
        masked_gradient: what happens where such rows carry gradient: "warn", "raise" or "ignore" (see `approximate_`).
        lean: what the neighbours of linear layers keep less of, in the words of `LeanOptions`, such as "neighbours" or
            "attention,head"; None leaves them stock.
        layers: patterns of the names of the layers that are converted (`*`, `?`, `[]`); None for all.
        lora_rank: freeze the model and train adapters of this rank (`wtacrs.integration.models.lora`) on the named
            layers, by the estimator.
        lora_alpha: adapters count `lora_alpha / lora_rank`; 2 · `lora_rank` if None.
        lora_fa: freeze A of every adapter, so that only B is trained.
        seed: of batches, dropout and estimators.
        eval_every: steps between evaluations; None for one per epoch.
        eval_from: first step that is evaluated: from 1 on the start is left out too.
        dev_loss: evaluate the mean dev loss too, "loss", over examples; for a model that writes, over tokens.
        baseline_steps: exact steps that are timed before a run with an estimator or lean neighbours, on the batches of
            its first steps; nothing is updated, and the run is what it would be without. 0 for none.
        save_every: steps between saved states, beside those at the start and at the end of every epoch.
        out: folder of the run; None writes nothing.
        resume: continue from the state in `out`.
        tensorboard: write event files too (`wtacrs.integration.training.tensorboard`).
        trackers: names of accelerate's trackers ("wandb", "mlflow" …) that are told what `metrics.jsonl` is.
        keep_weights: False writes no model folders, and leaves only results in the state of a run that is over.
        fsdp: cut the model into pieces over the processes (FSDP2) instead of giving each a copy.

    Raises:
        InputError: naming the field, its value and what is accepted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: float = 3.0
    steps: int | None = None
    batch_size: int = 32
    accumulation: int = 1
    lr: float = LEARNING_RATE
    optimizer: OptimizerName = "adamw"
    warmup: float = 0.06
    schedule: Schedule = "linear"
    weight_decay: float = 0.01
    clip: float | None = 1.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    max_length: int = 128
    estimator: str | None = None
    lean: str | None = None
    plan: BlockChoices | None = None
    scores: str = "row-norms"
    mask_floor: float = Field(MASK_FLOOR, gt=0, lt=1)
    budget_of: BudgetOf = "all-rows"
    min_rows: int = Field(0, ge=0)
    masked_gradient: MaskedGradient = "warn"
    layers: tuple[str, ...] | None = None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    lora_fa: bool = False
    seed: int = 0
    eval_every: int | None = None
    eval_from: int = Field(0, ge=0)
    dev_loss: bool = False
    save_every: int | None = None
    baseline_steps: int = Field(0, ge=0)
    trackers: tuple[str, ...] = ()
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
            given = "" if first["type"] in ("missing", "extra_forbidden") else f"={shown(first['input'])}"
            message = without_prefixes(
                first["msg"].removeprefix("Value error, "), f"{where}{given}", first["input"]
            )
            raise InputError(message if not first["loc"] else f"{where}{given}: {message}") from None

    @field_validator(*_NUMBERS, mode="before")
    @classmethod
    def _no_bool(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("must be a number, which True and False are not here")
        return value

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

    @field_validator("seed", mode="before")
    @classmethod
    def _usable_seed(cls, value: Any) -> int:
        if not is_seed(value):
            raise ValueError(f"must be {ACCEPTED_SEEDS}")
        return int(value)

    @field_validator("layers")
    @classmethod
    def _at_least_one_pattern(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and not value:
            raise ValueError("must have at least one pattern, or be None")
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

    @field_validator("lean")
    @classmethod
    def _words(cls, value: str | None) -> str | None:
        return None if value is None else str(LeanOptions.parse(value))

    @field_validator("precision")
    @classmethod
    def _supported(cls, value: str) -> str:
        if value == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
            raise ValueError(f"{torch.cuda.get_device_name()} has no bf16; fp32 is accepted")
        return value

    @field_validator("trackers")
    @classmethod
    def _installed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            require_tracker(name)
        return value

    @field_validator("scores")
    @classmethod
    def _known_scores(cls, value: str) -> str:
        if value not in TRAINING_SCORES:
            raise ValueError(f"must be {known_training_scores()}")
        return value

    @model_validator(mode="after")
    def _scores_need_an_estimator(self) -> FinetuneConfig:
        if self.scores != "row-norms" and self.estimator is None and self.plan is None:
            raise ValueError(
                f"scores={self.scores!r} need an estimator that samples by them; exact training has none"
            )
        return self

    @model_validator(mode="after")
    def _plan_alone(self) -> FinetuneConfig:
        others = ("estimator", "lean", "layers", "lora_rank")
        given = [name for name in others if getattr(self, name) is not None]
        if self.plan is not None and given:
            raise ValueError(f"plan with {given[0]}={getattr(self, given[0])!r}: a plan says it of every block")
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
            raise ValueError("resume=True needs out, the folder of the run to continue")
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
        return f"{adapters}{with_lean(str(self.estimator or self.plan or 'exact'), self.lean)}"

    def but(self, **changes: Any) -> FinetuneConfig:
        """The same with some fields changed, checked anew."""
        return FinetuneConfig(**(self.model_dump() | changes))

    def check_average(self, last: int) -> None:
        """Refuse to average more evaluations than the run has after its start, where steps tell how many there are.

        Raises:
            InputError: if there are fewer, or `last` is below 1.
        """
        if last < 1:
            raise InputError(f"average_last={last}: at least 1 is needed")
        if self.steps is None or self.eval_every is None:
            return
        regular = range(self.eval_every, self.steps + 1, self.eval_every)
        there = len({self.steps, *(step for step in regular if step >= self.eval_from)})
        if last > there:
            raise InputError(
                f"average_last={last}: a run has {counted(there, 'evaluation')}, with eval_every={self.eval_every} of "
                f"{self.steps} steps"
            )

    def identity(self) -> dict[str, Any]:
        """What must be equal for a run to be resumed: all that its results depend on."""
        left_out = {
            "out", "resume", "save_every", "tensorboard", "trackers", "keep_weights", "fsdp", "baseline_steps"
        }  # fmt: skip
        return self.model_dump(mode="json", exclude=left_out)


DEMO = FinetuneConfig(steps=900, batch_size=32, lr=NEW_MODEL_LEARNING_RATE, max_length=48, eval_every=150)
"""Settings with which the embedded T5 learns the `docstrings` task in under a minute on two cores."""
