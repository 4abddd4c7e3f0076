"""The training loop itself: batches, optimizer, schedule and one step; what is measured and saved comes on top.

The steps are a function of (config, task, model) on a given device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from wtacrs.estimators.errors import InputError
from wtacrs.integration.data import TaskData
from wtacrs.integration.encoding import Encoded, collate, encode
from wtacrs.integration.finetune_config import FinetuneConfig
from wtacrs.integration.lora import stock_model
from wtacrs.integration.models import is_text_to_text
from wtacrs.integration.padding import gradient_norms_of

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_POOL_BATCHES = 50
"""Length bucketing sorts within pools of so many batches, so that batches still mix the whole epoch."""


class Trainer:
    """Model, AdamW, schedule and position of one run; torch's global generators are seeded with `config.seed`.

    Attributes:
        step: optimizer steps taken.
        losses: one per step since they were last emptied.
        seconds: of training, all of them together.
        examples: trained on so far, with repetitions.
        learning_rate: of the last step.
        gradient_norm: of the last step, before it was clipped.
        gradient_norms: what the layers of a converted model remember for their scores, or None.
    """

    def __init__(
        self, config: FinetuneConfig, task: TaskData, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        from transformers import get_scheduler

        self.config, self.task, self.model, self.tokenizer = config, task, model, tokenizer
        self.accelerator = _accelerator(config.precision)
        self.train_set = encode(
            task.train, tokenizer, text_to_text=is_text_to_text(stock_model(model)), max_length=config.max_length
        )
        self.steps_per_epoch = math.ceil(len(self.train_set) / (config.batch_size * config.accumulation))
        self.total_steps = config.steps or max(1, round(config.epochs * self.steps_per_epoch))
        model.to(self.accelerator.device)
        self.optimizer = self.accelerator.prepare_optimizer(
            torch.optim.AdamW(
                _parameter_groups(model, config.weight_decay), lr=config.lr, weight_decay=config.weight_decay
            )
        )
        self.scheduler = get_scheduler(
            # the library's own "constant" would leave out the warm-up without a word
            "constant_with_warmup" if config.schedule == "constant" else config.schedule,
            self.optimizer.optimizer,
            num_warmup_steps=round(config.warmup * self.total_steps),
            num_training_steps=self.total_steps,
        )
        self.gradient_norms = gradient_norms_of(model)
        self._gives_ids = self.gradient_norms is not None and self.gradient_norms.needs_ids
        self.step, self.seconds, self.examples = 0, 0.0, 0
        self.learning_rate, self.gradient_norm = 0.0, 0.0
        self.losses: list[float] = []
        torch.manual_seed(config.seed)

    def train(self) -> None:
        """Train to the last step."""
        self.model.train()
        while self.step < self.total_steps:
            epoch, done = divmod(self.step, self.steps_per_epoch)
            for batches in epoch_steps(self.train_set, self.config, epoch)[done:]:
                self._step(batches)
                self.after_step()
                if self.step == self.total_steps:
                    break

    def before_update(self) -> None:
        """Called when the gradients of a step are complete, before they are clipped; `step` is not yet counted."""

    def after_step(self) -> None:
        """Called after every step."""

    def _step(self, batches: Sequence[Sequence[Encoded]]) -> None:
        started = time.perf_counter()
        total = torch.zeros((), device=self.accelerator.device)
        for examples in batches:
            batch = collate(examples, self.tokenizer, regression=self.task.labels is None, ids=self._gives_ids)
            with self.accelerator.autocast():
                loss = self.model(**{k: v.to(self.accelerator.device) for k, v in batch.items()}).loss
            self.accelerator.backward(loss / len(batches))
            total += loss.detach() / len(batches)
        value = total.item()
        if not math.isfinite(value):
            raise InputError(
                f"lr={self.config.lr}: the training loss is {value} at step {self.step + 1} "
                f"({self.config.method}, {self.config.precision}); a smaller lr may help"
            )
        self.before_update()
        self.gradient_norm = self._clip()
        self.learning_rate = self.scheduler.get_last_lr()[0]
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.losses.append(value)
        self.examples += sum(map(len, batches))
        self.seconds += time.perf_counter() - started

    def _clip(self) -> float:
        """Clip the gradients, if wanted, and return what their norm was."""
        if self.config.clip is not None:
            return float(self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip))
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))


def epoch_steps(data: Sequence[Encoded], config: FinetuneConfig, epoch: int) -> list[list[list[Encoded]]]:
    """The steps of an epoch, each a list of batches: a function of the seed and the epoch's number alone.

    Examples are shuffled, sorted by length within pools, cut into batches, and the batches shuffled again.
    """
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    size = config.batch_size
    order = torch.randperm(len(data), generator=generator).tolist()
    batches: list[list[Encoded]] = []
    for start in range(0, len(order), size * _POOL_BATCHES):
        pool = sorted(order[start : start + size * _POOL_BATCHES], key=lambda i: len(data[i]))
        batches += [[data[i] for i in pool[j : j + size]] for j in range(0, len(pool), size)]
    mixed = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
    return [mixed[i : i + config.accumulation] for i in range(0, len(mixed), config.accumulation)]


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> Iterator[dict[str, Any]]:
    """Matrices decay; biases and norms do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for decays in (True, False):
        group = [parameter for parameter in trained if (parameter.ndim >= 2) == decays]
        if group:
            yield {"params": group, "weight_decay": weight_decay if decays else 0.0}


def _accelerator(precision: str) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    wanted = "bf16" if precision == "bf16" else "no"
    state = AcceleratorState._shared_state
    if state and state.get("_mixed_precision") != wanted:
        AcceleratorState._reset_state()  # one process may train in several precisions, one after the other
    accelerator = Accelerator(mixed_precision=wanted)
    if accelerator.num_processes > 1:
        raise InputError(f"{accelerator.num_processes} processes: a run is trained in one process")
    return accelerator
