"""The training loop itself: batches, optimizer, schedule and one step; what is measured and saved comes on top.

The steps are a function of (config, task, model) on a given device. Several processes (torchrun, accelerate) share every
batch: without random numbers they take the steps that one process takes, up to rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.models.loading import is_text_to_text
from wtacrs.integration.models.lora import stock_model
from wtacrs.integration.parallel.ddp import replicated
from wtacrs.integration.parallel.fsdp import full_state_dict, set_gradient_sync, shard
from wtacrs.integration.parallel.processes import Processes
from wtacrs.integration.score_memory.gradient_norms import gradient_norms_of
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.encoding import Encoded, collate, counted, encode
from wtacrs.integration.training.config import FinetuneConfig

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_MOMENTUM = 0.9
_POOL_BATCHES = 50
"""Length bucketing sorts within pools of so many batches, so that batches still mix the whole epoch."""


class TrainingLoop:
    """Model, optimizer, schedule and position of one run; torch's global generators are seeded with `config.seed`.

    Of several processes each seeds its generators differently, and takes its share of every batch. A loss is the sum over
    the whole batch divided by what is counted there, tokens or examples, however they fall on the processes.

    Attributes:
        processes: that train together.
        step: optimizer steps taken.
        losses: one per step since they were last emptied.
        seconds: of training, all of them together.
        examples: trained on so far by all processes, with repetitions.
        pass_seconds: forward and backward passes of each step since this object was made.
        skipped: steps without an update, since a gradient was not finite in fp16 (the factor of the loss then falls).
        learning_rate: of the last step.
        gradient_norm: of the last step, before it was clipped.
        gradient_norms: what the layers of a converted model remember for their scores, or None.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        task: TaskData,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        train_set: Sequence[Encoded] | None = None,
    ) -> None:
        from transformers import get_scheduler

        self.config, self.task, self.model, self.tokenizer = config, task, model, tokenizer
        self.accelerator, self.processes = _accelerator(config), Processes.here()
        _check_processes(config, self.processes)
        self.train_set = _encoded(config, task, model, tokenizer) if train_set is None else train_set
        self.steps_per_epoch = math.ceil(len(self.train_set) / (config.batch_size * config.accumulation))
        self.total_steps = config.steps or max(1, round(config.epochs * self.steps_per_epoch))
        model.to(self.accelerator.device)
        if config.fsdp:
            shard(model)  # before the optimizer, which takes the pieces
        self.optimizer = self.accelerator.prepare_optimizer(_optimizer(config, model))
        self.scheduler = get_scheduler(
            # the library's own "constant" would leave out the warm-up without a word
            "constant_with_warmup" if config.schedule == "constant" else config.schedule,
            self.optimizer.optimizer,
            num_warmup_steps=round(config.warmup * self.total_steps),
            num_training_steps=self.total_steps,
        )
        half = config.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.accelerator.device.type, enabled=half)
        self.gradient_norms = gradient_norms_of(model)
        self._gives_ids = self.gradient_norms is not None and self.gradient_norms.needs_ids
        self.step, self.skipped, self.seconds, self.examples = 0, 0, 0.0, 0
        self.pass_seconds: list[float] = []
        self.learning_rate, self.gradient_norm = 0.0, 0.0
        self.losses: list[float] = []
        torch.manual_seed(self.processes.own_seed(config.seed))
        self._replica: nn.Module = model
        if self.processes.count > 1 and not config.fsdp:
            self._replica = replicated(model.train(), self._first_loss)

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

    def watched(self) -> AbstractContextManager[object]:
        """What forward and backward passes of the coming step run in."""
        return nullcontext()

    def autocast(self) -> AbstractContextManager[object]:
        """What forward passes run in."""
        return torch.autocast(
            self.accelerator.device.type,
            dtype=_AUTOCAST.get(self.config.precision),
            enabled=self.config.precision in _AUTOCAST,
        )

    def _step(self, batches: Sequence[Sequence[Encoded]]) -> None:
        started = time.perf_counter()
        value, seconds = self.passes(batches)
        self.pass_seconds.append(seconds)
        if not math.isfinite(value):
            raise InputError(
                f"lr={self.config.lr}: the training loss is {value} at step {self.step + 1} "
                f"({self.config.method}, {self.config.precision}); a smaller lr may help"
            )
        self.scaler.unscale_(self.optimizer.optimizer)
        self.before_update()
        self.gradient_norm = self._clip()
        self.learning_rate = self.scheduler.get_last_lr()[0]
        self._update()
        self.step += 1
        self.losses.append(value)
        self.examples += sum(map(len, batches))
        self.seconds += time.perf_counter() - started

    def passes(self, batches: Sequence[Sequence[Encoded]]) -> tuple[float, float]:
        """Forward and backward passes of one step: the loss, and the seconds that they took."""
        started = time.perf_counter()
        with self.watched():
            value = self._gradients(batches)
            if self.accelerator.device.type == "cuda":
                torch.cuda.synchronize(self.accelerator.device)
        return value, time.perf_counter() - started

    def _gradients(self, batches: Sequence[Sequence[Encoded]]) -> float:
        """Forward and backward passes of one step; the loss."""
        total = torch.zeros((), device=self.accelerator.device)
        for number, examples in enumerate(batches, start=1):
            share = self.processes.share(examples)
            weight = self.processes.count * counted(share) / counted(examples)
            set_gradient_sync(self.model, number == len(batches))
            with self._without_sync() if number < len(batches) else nullcontext():
                # all processes take part in what is averaged, one without examples too
                loss = self._loss(self._replica, share or examples[:1]) * weight
                self.scaler.scale(loss / len(batches)).backward()
            total += loss.detach() / len(batches)
        return float(self.processes.mean(total).item())

    def _update(self) -> None:
        """Take the step, or in fp16 leave it out where a gradient is not finite; the schedule counts it anyway."""
        factor = self.scaler.get_scale()
        self.scaler.step(self.optimizer.optimizer)
        self.scaler.update()
        self.skipped += self.scaler.get_scale() < factor
        self.scheduler.step()
        self.optimizer.zero_grad()

    def _loss(self, model: nn.Module, examples: Sequence[Encoded]) -> Tensor:
        batch = collate(examples, self.tokenizer, regression=self.task.regression, ids=self._gives_ids)
        with self.autocast():
            return model(**{k: v.to(self.accelerator.device) for k, v in batch.items()}).loss

    def _first_loss(self, model: nn.Module) -> Tensor:
        return self._loss(model, self.train_set[:1])

    def _without_sync(self) -> AbstractContextManager[None]:
        """Gradients stay with the process that computed them."""
        return self._replica.no_sync() if isinstance(self._replica, DistributedDataParallel) else nullcontext()

    def _clip(self) -> float:
        """Clip the gradients, if wanted, and return what their norm was."""
        if self.config.clip is not None:
            return float(
                full_state_dict(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip))
            )
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return float(full_state_dict(torch.nn.utils.get_total_norm(gradients)))


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


def _optimizer(config: FinetuneConfig, model: nn.Module) -> Optimizer:
    groups = list(_parameter_groups(model, config.weight_decay))
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=_MOMENTUM, weight_decay=config.weight_decay)
    if config.optimizer == "adafactor":
        return torch.optim.Adafactor(groups, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> Iterator[dict[str, Any]]:
    """Matrices decay; biases and norms do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for decays in (True, False):
        group = [parameter for parameter in trained if (parameter.ndim >= 2) == decays]
        if group:
            yield {"params": group, "weight_decay": weight_decay if decays else 0.0}


def _encoded(
    config: FinetuneConfig, task: TaskData, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Sequence[Encoded]:
    return encode(
        task.train,
        tokenizer,
        text_to_text=is_text_to_text(stock_model(model)),
        max_length=config.max_length,
        target_limit=task.target_limit,
    )


def _accelerator(config: FinetuneConfig) -> Accelerator:
    """The device and the processes; autocast and the factor of the loss are the loop's."""
    from accelerate import Accelerator, DistributedType
    from accelerate.state import AcceleratorState

    if AcceleratorState._shared_state.get("_mixed_precision", "no") != "no":
        AcceleratorState._reset_state()  # of somebody else in this process
    accelerator = Accelerator(
        mixed_precision="no", log_with=list(config.trackers) or None, project_dir=config.out or "."
    )
    way = accelerator.distributed_type
    if way not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise InputError(f"accelerate's distributed_type={way.value}: only MULTI_GPU and MULTI_CPU are supported")
    return accelerator


def _check_processes(config: FinetuneConfig, processes: Processes) -> None:
    """Every process would remember what its own share of the batches showed, which is another one in every epoch."""
    if config.fsdp and processes.count == 1:
        raise InputError("fsdp=True: needs several processes; start them with torchrun or accelerate launch")
    if processes.count > 1 and config.precision == "fp16":
        raise InputError(f"precision='fp16' in {processes.count} processes: bf16, fp32 or one process is accepted")
    if processes.count > 1 and config.scores != "row-norms":
        raise InputError(
            f"scores={config.scores!r} in {processes.count} processes: each sees the gradients of its own share only, "
            "and what is remembered would not be one state to resume from; use 'row-norms' or one process"
        )
