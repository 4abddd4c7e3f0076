"""Fine-tuning, exact or with an estimated weight gradient: one short loop for text-to-text and classification.

A run is a function of (config, task, model) on a given device, and an interrupted run that is resumed gives the
same result as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wtacrs.estimators.errors import InputError
from wtacrs.integration.checkpoints import (
    load_state,
    random_states,
    save_checkpoint,
    save_state,
    set_random_states,
)
from wtacrs.integration.convert import approximate_, restore_
from wtacrs.integration.data import TaskData
from wtacrs.integration.encoding import Encoded, collate, encode
from wtacrs.integration.evaluation import Evaluator
from wtacrs.integration.finetune_config import DEMO, FinetuneConfig
from wtacrs.integration.models import is_text_to_text
from wtacrs.integration.progress import progress_display
from wtacrs.validation.records import stamp
from wtacrs.validation.results import TrainingPoint, TrainingResult, write_text

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["DEMO", "FinetuneConfig", "finetune"]

_POOL_BATCHES = 50
"""Length bucketing sorts within pools of so many batches, so that batches still mix the whole epoch."""


def finetune(
    config: FinetuneConfig,
    task: TaskData,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    progress: bool = False,
    on_point: Callable[[TrainingPoint], None] | None = None,
) -> TrainingResult:
    """Train `model` in place and return its history; dev is evaluated at step 0, periodically and at the end.

    With `config.out` the folder receives ``metrics.jsonl`` (a line per evaluation), ``best/`` (the model with the
    best main metric, first one if tied), ``last/``, both loadable by stock transformers, ``state.pt`` to resume
    from, and ``result.json``. torch's global generators are seeded with `config.seed`: dropout and the estimators
    draw from them. The model ends on the training device, in eval mode and unconverted.

    Args:
        config: how to train.
        task: what to train on.
        model: encoder–decoder or with a classification head; random or pre-trained.
        tokenizer: the model's.
        progress: show a progress line on stderr.
        on_point: called after every evaluation.

    Raises:
        InputError: if the state to resume from does not fit, the tokenizer cannot spell the answers, or the
            training loss is not finite (`lr` too large, say).
    """
    converted = 0 if config.estimator is None else len(approximate_(model, config.estimator))
    try:
        with progress_display(progress, title=f"{task.name} · {config.estimator or 'exact'}") as show:
            run = _Run(config, task, model, tokenizer, show, on_point)
            run.train()
    finally:
        restore_(model)
        model.eval()
    run.finish()
    metric = task.metrics[0]
    values = [point.dev[metric] for point in run.history if point.step > 0]
    result = TrainingResult(
        stamp=stamp(seed=config.seed, device=run.accelerator.device.type, inputs=_inputs(config)),
        task=task.name,
        model=model.name_or_path or type(model).__name__,
        estimator=config.estimator or "exact",
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        converted=converted,
        train_size=len(task.train),
        dev_size=len(task.dev),
        metric=metric,
        majority=task.majority,
        best=max(values),
        final=values[-1],
        history=run.history,
    )
    if config.out is not None:
        write_text(config.out / "result.json", result.model_dump_json(indent=2) + "\n")
    return result


class _Run:
    """The moving parts of one run: what is saved, restored and stepped."""

    def __init__(
        self,
        config: FinetuneConfig,
        task: TaskData,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        show: Callable[..., None],
        on_point: Callable[[TrainingPoint], None] | None,
    ) -> None:
        from transformers import get_scheduler

        self.config, self.task, self.model, self.tokenizer = config, task, model, tokenizer
        self._show, self._on_point = show, on_point
        self.accelerator = _accelerator(config.precision)
        text_to_text = is_text_to_text(model)
        self.train_set = encode(task.train, tokenizer, text_to_text=text_to_text, max_length=config.max_length)
        self.evaluate = Evaluator(task, tokenizer, text_to_text=text_to_text, max_length=config.max_length)
        self.steps_per_epoch = math.ceil(len(self.train_set) / (config.batch_size * config.accumulation))
        self.total_steps = config.steps or max(1, round(config.epochs * self.steps_per_epoch))
        model.to(self.accelerator.device)
        self.optimizer = self.accelerator.prepare_optimizer(
            torch.optim.AdamW(
                _parameter_groups(model, config.weight_decay), lr=config.lr, weight_decay=config.weight_decay
            )
        )
        self.scheduler = get_scheduler(
            config.schedule,
            self.optimizer.optimizer,
            num_warmup_steps=round(config.warmup * self.total_steps),
            num_training_steps=self.total_steps,
        )
        self.step, self.seconds, self.examples, self.best = 0, 0.0, 0, -math.inf
        self.losses: list[float] = []
        self.lines: list[dict[str, Any]] = []
        torch.manual_seed(config.seed)
        if config.resume:
            self._restore()
        elif config.out is not None:
            (config.out / "state.pt").unlink(missing_ok=True)

    @property
    def history(self) -> list[TrainingPoint]:
        """The evaluations so far."""
        return [TrainingPoint(**{key: line[key] for key in TrainingPoint.model_fields}) for line in self.lines]

    def train(self) -> None:
        """Train to the last step."""
        if not self.lines:
            self._evaluate()
        self.model.train()
        while self.step < self.total_steps:
            epoch, done = divmod(self.step, self.steps_per_epoch)
            for batches in _epoch(self.train_set, self.config, epoch)[done:]:
                self._step(batches)
                self._after_step()
                if self.step == self.total_steps:
                    break

    def finish(self) -> None:
        """Write what remains once the model is stock again."""
        if self.config.out is not None:
            save_checkpoint(self.config.out / "last", self.model, self.tokenizer)

    def _step(self, batches: Sequence[Sequence[Encoded]]) -> None:
        started = time.perf_counter()
        total = torch.zeros((), device=self.accelerator.device)
        for examples in batches:
            batch = collate(examples, self.tokenizer, regression=self.task.labels is None)
            with self.accelerator.autocast():
                loss = self.model(**{k: v.to(self.accelerator.device) for k, v in batch.items()}).loss
            self.accelerator.backward(loss / len(batches))
            total += loss.detach() / len(batches)
        value = total.item()
        if not math.isfinite(value):
            raise InputError(
                f"lr={self.config.lr}: the training loss is {value} at step {self.step + 1} "
                f"(estimator {self.config.estimator or 'exact'}, {self.config.precision}); a smaller lr may help"
            )
        if self.config.clip is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.losses.append(value)
        self.examples += sum(map(len, batches))
        self.seconds += time.perf_counter() - started

    def _after_step(self) -> None:
        self._show(step=self.step, total=self.total_steps, loss=self.losses[-1])
        ended = self.step == self.total_steps
        if ended or self.step % (self.config.eval_every or self.steps_per_epoch) == 0:
            self._evaluate()
        epoch_over = self.step % self.steps_per_epoch == 0
        if ended or epoch_over or (self.config.save_every and self.step % self.config.save_every == 0):
            self._save()

    def _evaluate(self) -> None:
        with self.accelerator.autocast():
            dev = self.evaluate(self.model)
        cuda = self.accelerator.device.type == "cuda"
        self.lines.append(
            {
                "step": self.step,
                "epoch": self.step / self.steps_per_epoch,
                "train_loss": sum(self.losses) / len(self.losses) if self.losses else None,
                "dev": dev,
                "seconds": self.seconds,
                "examples_per_second": self.examples / self.seconds if self.seconds else None,
                "peak_memory_bytes": torch.cuda.max_memory_allocated() if cuda else None,
            }
        )
        self.losses = []
        self._write_lines()
        metric = self.task.metrics[0]
        self._show(step=self.step, total=self.total_steps, metric=f"{metric} {dev[metric]:.3f}")
        if self.step > 0 and dev[metric] > self.best:
            self.best = dev[metric]
            if self.config.out is not None:
                save_checkpoint(self.config.out / "best", self.model, self.tokenizer)
        if self._on_point is not None:
            self._on_point(self.history[-1])

    def _write_lines(self) -> None:
        if self.config.out is not None:
            write_text(self.config.out / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in self.lines))

    def _identity(self) -> dict[str, Any]:
        return {
            "config": self.config.identity(),
            "task": self.task.name,
            "train": len(self.task.train),
            "dev": len(self.task.dev),
            "model": type(self.model).__name__,
        }

    def _save(self) -> None:
        if self.config.out is None:
            return
        progress = {"step": self.step, "seconds": self.seconds, "examples": self.examples, "best": self.best}
        save_state(
            self.config.out / "state.pt",
            {
                "identity": self._identity(),
                "progress": progress | {"losses": self.losses, "lines": self.lines},
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "random": random_states(),
            },
        )

    def _restore(self) -> None:
        path = Path(self.config.out or ".") / "state.pt"
        state = load_state(path)
        theirs, ours = state["identity"], self._identity()
        for mine, other, prefix in ((ours, theirs, ""), (ours["config"], theirs["config"], "config ")):
            for key in mine:
                if key != "config" and mine[key] != other.get(key):
                    raise InputError(
                        f"resume: {prefix}{key}={mine[key]!r}, but the run in {path.parent} had {other.get(key)!r}"
                    )
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError:
            raise InputError(f"resume: the model of the run in {path.parent} had other layers or sizes") from None
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        for name, value in state["progress"].items():
            setattr(self, name, value)
        set_random_states(state["random"])
        self._write_lines()


def _epoch(data: Sequence[Encoded], config: FinetuneConfig, epoch: int) -> list[list[list[Encoded]]]:
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


def _inputs(config: FinetuneConfig) -> dict[str, str]:
    return {key: str(value) for key, value in config.identity().items() if key != "seed"}
