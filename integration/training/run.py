"""Fine-tuning, exact or with an estimated weight gradient: one short loop for text-to-text and classification.

A run is a function of (config, task, model) on a given device, and an interrupted run that is resumed gives the
same result as one that was not. Several processes train together under torchrun or `accelerate launch`.
"""

from __future__ import annotations

import json
import logging
import math
import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.mask_floor import MASK_FLOOR
from wtacrs.integration.context.sampling_state import load_sampling_state, misled_layers, sampling_state
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.dynamic_classes import own_class
from wtacrs.integration.layers.lean.convert import LeanConversion, lean_
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.integration.layers.linear_layers import filter_of
from wtacrs.integration.measure.kept_bytes import KeptBytesProbe, lean_receipt, training_layers
from wtacrs.integration.measure.memory import PeakWatch
from wtacrs.integration.models.loading import is_text_to_text, model_name
from wtacrs.integration.models.lora import add_lora, merge_lora, stock_model
from wtacrs.integration.parallel.fsdp import (
    full_state_dict,
    full_weights,
    is_sharded,
    load_full_optimizer,
    load_full_weights,
)
from wtacrs.integration.parallel.processes import Processes
from wtacrs.integration.progress import progress_display
from wtacrs.integration.tasks.base import TaskData, digest
from wtacrs.integration.tasks.encoding import Encoded
from wtacrs.integration.training.baseline import UNTIMED_STEPS, measure_baseline, wants_baseline
from wtacrs.integration.training.checkpoints import (
    load_state,
    random_states,
    remove_leftovers,
    resume_random_states,
    save_checkpoint,
    save_state,
)
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.integration.training.evaluation import Evaluator
from wtacrs.integration.training.loop import TrainingLoop
from wtacrs.integration.training.tensorboard import FOLDER, EventLog
from wtacrs.integration.training.trackers import Trackers
from wtacrs.validation.arguments import check_callable, check_flag, check_kind
from wtacrs.validation.records.base import hyphenated, stamp
from wtacrs.validation.records.receipt import Receipt, receipt_lines
from wtacrs.validation.records.results import load_result, write_result, write_text
from wtacrs.validation.records.training import StepCost, TrainingPoint, TrainingResult

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def finetune(
    config: FinetuneConfig,
    task: TaskData,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    progress: bool = False,
    on_point: Callable[[TrainingPoint], None] | None = None,
    observer: Observer | None = None,
    on_receipt: Callable[[Receipt], None] | None = None,
) -> TrainingResult:
    """Train `model` in place and return its history; dev is evaluated at step 0 (unless `config.eval_from`
    says otherwise), periodically and at the end.

    A text-to-text model is evaluated by greedy generation: its answer counts if it is the label's text, letter for letter
    but for case and spaces (`Evaluator`). No label is scored in its place.

    With `config.out` the folder receives ``metrics.jsonl`` (a line per evaluation), ``best/`` (the model with the
    best main metric, first one if tied), ``last/``, both loadable by stock transformers, ``state.pt`` to resume
    from, ``result.json`` and on request ``tensorboard/``. The state is saved before the first step, so that a run that
    is killed at any step can go on. torch's global generators are seeded with `config.seed`, and estimators draw by the
    same seed from generators of their own. The model ends on the training device, in eval mode and unconverted.

    In several processes, which all must call this with the same arguments, each takes its share of every batch, so that
    `batch_size` and steps mean what they mean in one, and each draws random numbers of its own. The first one writes,
    into a folder that all must see, and calls `on_point`. ``state.pt`` can be resumed in another number of processes,
    with other random numbers from there on, and in the same number bit by bit. With `config.fsdp` no process has all of
    the model, which stays in pieces; what is written is as in one process.

    An interrupted run (Ctrl-C) raises `KeyboardInterrupt` with a note on the step and on the command that goes on.

    Args:
        config: how to train.
        task: what to train on.
        model: encoder–decoder or with a classification head; random or pre-trained.
        tokenizer: the model's.
        progress: show a progress line on stderr.
        on_point: called after every evaluation.
        observer: sees the gradients of every step.
        on_receipt: called after the first step, in the first process, with what is kept beside what was promised.

    Raises:
        InputError: if the state to resume from does not fit, the tokenizer cannot spell the answers, or the
            training loss is not finite (`lr` too large, say), if scores are remembered in several processes, or if an
            argument is not of the type that is said here.
    """
    _check_arguments(config, task, model, tokenizer)
    check_flag(progress, "progress")
    check_callable(on_point, "on_point", takes="an evaluation's point")
    trained = _prepared(model, config)
    trainable = sum(parameter.numel() for parameter in trained.parameters() if parameter.requires_grad)
    try:
        baseline, train_set = None, None
        if wants_baseline(config):
            baseline, train_set = measure_baseline(config, task, trained, tokenizer)
        lean = _convert(trained, config)
        converted = len(training_layers(trained))
        first = Processes.here().first
        with progress_display(progress and first, title=f"{task.name} · {config.method}") as show:
            run = _Run(
                config, task, trained, tokenizer, show, on_point, observer, on_receipt, lean, baseline, train_set
            )
            try:
                run.train()
                misled = run.misled()
            except KeyboardInterrupt as stopped:
                stopped.add_note(run.where_it_stopped())
                raise
            finally:
                run.close()
        restore_(trained)
        run.processes.run_on_all(run.finish)
    finally:
        restore_(trained)
        merge_lora(trained)
        model.eval()
    metric = task.metrics[0]
    values = [point.dev[metric] for point in run.history if point.step > 0]
    result = TrainingResult(
        stamp=stamp(
            seed=config.seed, device=run.accelerator.device.type, inputs=_inputs(config) | dict(task.given)
        ),
        task=task.name,
        model=model_name(model),
        estimator=config.estimator or str(config.plan or "exact"),
        lean=config.lean,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trainable=trainable,
        converted=converted,
        train_size=len(task.train),
        dev_size=len(task.dev),
        metric=metric,
        majority=task.majority,
        best=max(values),
        final=values[-1],
        history=run.history,
        processes=run.processes.count,
        masked_gradient=misled,
        kept_bytes=run.kept_bytes,
        exact_bytes=run.exact_bytes,
        receipt=run.receipt,
        step=run.step_cost,
        baseline=run.baseline,
        skipped=run.skipped,
    )
    if run.folder is not None:
        write_result(run.folder / "result.json", result)
    return result


def _check_arguments(config: object, task: object, model: object, tokenizer: object) -> None:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    check_kind(config, "config", FinetuneConfig)
    check_kind(task, "task", TaskData)
    check_kind(model, "model", PreTrainedModel)
    check_kind(tokenizer, "tokenizer", PreTrainedTokenizerBase)


def finished_result(config: FinetuneConfig, task: TaskData, model: str) -> TrainingResult | None:
    """The result of the run in `config.out` if it is over and kept no weights, so that only its result can be read.

    Args:
        config: of the run.
        task: of the run.
        model: the model's name, as `model_name` gives it.

    Returns:
        The result; None if there is none, if the run is not over or kept weights, or if it trained another model.

    Raises:
        InputError: if the run had other settings or another task.
    """
    folder = Path(config.out or ".")
    if config.keep_weights or not (folder / "result.json").exists():
        return None
    try:
        result = load_result(folder / "result.json")
    except InputError:  # cut off or of no known version: written anew from the state
        return None
    state = load_state(folder / "state.pt")
    if state["model"] is not None or not isinstance(result, TrainingResult) or result.model != model:
        return None
    _refuse_other(_identity(config, task), state["identity"], folder)
    return result


class Observer(Protocol):
    """What watches the gradients of a run."""

    def started(self, model: nn.Module, step: int) -> None:
        """The model is ready, converted layers included; `step` steps were taken before, more than 0 if resumed."""

    def gradients(self, step: int) -> None:
        """The gradients of the step, counted from 1, are complete and not yet clipped."""

    def saving(self) -> None:
        """The state is about to be saved: a resumed run will call `started` with a step from here on."""


_FILES = ("best", "last", "state.pt", "metrics.jsonl", "result.json")
_PROGRESS = (
    "step", "seconds", "examples", "learning_rate", "gradient_norm", "best", "losses", "lines",
    "kept_bytes", "exact_bytes", "receipt_fields", "peak_bytes", "timed", "baseline_fields", "skipped",
)  # fmt: skip


class _Run(TrainingLoop):
    """A run that is evaluated, saved, restored and observed; `folder` is None where nothing is to be written."""

    def __init__(
        self,
        config: FinetuneConfig,
        task: TaskData,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        show: Callable[..., None],
        on_point: Callable[[TrainingPoint], None] | None,
        observer: Observer | None,
        on_receipt: Callable[[Receipt], None] | None,
        lean: LeanConversion | None,
        baseline: StepCost | None,
        train_set: Sequence[Encoded] | None,
    ) -> None:
        super().__init__(config, task, model, tokenizer, train_set=train_set)
        self._show, self._on_point, self._observer, self._on_receipt = show, on_point, observer, on_receipt
        self._lean = lean
        self.evaluate = Evaluator(
            task,
            tokenizer,
            text_to_text=is_text_to_text(stock_model(model)),
            max_length=config.max_length,
            with_loss=config.dev_loss,
        )
        self.best = -math.inf
        self.lines: list[dict[str, Any]] = []
        self.kept_bytes: int | None = None
        self.exact_bytes: int | None = None
        self.receipt_fields: dict[str, Any] | None = None
        self._probe: KeptBytesProbe | None = None
        self.peak_bytes: int | None = None
        self.timed: list[float] = []
        self.baseline_fields = None if baseline is None else baseline.model_dump()
        self._watch: PeakWatch | None = None
        self._saved_at = 0
        self.folder = config.out if self.processes.first else None
        if config.resume:
            self.processes.run_on_all(self._restore)
        elif self.folder is not None:
            for name in ("state.pt", "result.json"):
                (self.folder / name).unlink(missing_ok=True)
        if self.folder is not None:
            remove_leftovers(self.folder, _FILES)
        self._events: EventLog | None = None
        if config.tensorboard and self.folder is not None:
            self._events = EventLog(self.folder / FOLDER, after=self.step if config.resume else None)
        where = config.out
        self._trackers = Trackers(self.accelerator, (where or Path(task.name)).name, config.identity(), where)
        if observer is not None:
            observer.started(model, self.step)

    @property
    def history(self) -> list[TrainingPoint]:
        """The evaluations so far."""
        return [TrainingPoint(**{key: line[key] for key in TrainingPoint.model_fields}) for line in self.lines]

    @property
    def receipt(self) -> Receipt | None:
        """Of the first step; None where it could not be measured."""
        return None if self.receipt_fields is None else Receipt(**self.receipt_fields)

    @property
    def baseline(self) -> StepCost | None:
        """Of exact steps before the run; None where none were taken."""
        return None if self.baseline_fields is None else StepCost(**self.baseline_fields)

    @property
    def step_cost(self) -> StepCost | None:
        """Of the first steps; None where there was no baseline to compare with."""
        if self.baseline is None:
            return None
        return StepCost(seconds=self.timed, kept_bytes=self.kept_bytes, peak_bytes=self.peak_bytes)

    def watched(self) -> AbstractContextManager[object]:
        """The peak, in the step in which the baseline was watched too."""
        if self.baseline is None or self.step != 1:
            return super().watched()
        self._watch = PeakWatch(self.model)
        return self._watch

    def where_it_stopped(self) -> str:
        """What a person who interrupts the run is told."""
        stopped = f"interrupted at step {self.step} of {self.total_steps}"
        if self.config.out is None:
            return stopped
        command = shlex.join(["wtacrs", "finetune", "--resume", "--out", str(self.config.out)])
        return f"{stopped}; {command} goes on from step {self._saved_at}"

    def train(self) -> None:
        """Train to the last step, after an evaluation of the start."""
        if self.step == 0 and not self.lines:
            if self.config.eval_from == 0:
                self._evaluate()
            self._save()
        if self.kept_bytes is None:
            self._probe = KeptBytesProbe(self.model)
        super().train()

    def close(self) -> None:
        """End the event files and the measurement, whatever happened."""
        if self._probe is not None:
            self._probe.remove()
        if self._events is not None:
            self._events.close()
        self._trackers.close()

    def misled(self) -> dict[str, float]:
        """Layers that masks misled in any process, with the largest share of ‖dY‖² in rows called padding."""
        found: dict[str, float] = {}
        for shares in self.processes.gathered(misled_layers(self.model)):
            found |= {layer: max(share, found.get(layer, 0.0)) for layer, share in shares.items()}
        return found

    def finish(self) -> None:
        """Write what remains once the model is stock again."""
        self._save_model("last")

    def before_update(self) -> None:
        """Take what was measured in the first step, and show the gradients to the observer."""
        if self._probe is not None:
            self._take_measurement(self._probe)
        if self._watch is not None:
            self.peak_bytes, self._watch = self._watch.peak, None
        elif self.baseline is not None and self.step >= UNTIMED_STEPS and self._lacks_times(self.baseline):
            self.timed.append(self.pass_seconds[-1])
        if self._observer is not None:
            self._observer.gradients(self.step + 1)

    def _lacks_times(self, baseline: StepCost) -> bool:
        return len(self.timed) < len(baseline.seconds)

    def _take_measurement(self, probe: KeptBytesProbe) -> None:
        probe.remove()
        self._probe = None
        if probe.found is None:
            logger.warning("kept bytes are not measured: %s", probe.reason)
        else:
            self.kept_bytes, self.exact_bytes = probe.found.kept, probe.found.exact
            receipt = lean_receipt(probe.found.receipt, self.config.lean, self._lean)
            self.receipt_fields = receipt.model_dump()
            for line in receipt_lines(receipt):
                logger.info("%s", line)
            if self._on_receipt is not None and self.processes.first:
                self._on_receipt(receipt)

    def after_step(self) -> None:
        """Evaluate and save when it is time to."""
        self._show(step=self.step, total=self.total_steps, loss=self.losses[-1])
        state = {"learning_rate": self.learning_rate, "gradient_norm": self.gradient_norm}
        self._note("train", {"loss": self.losses[-1]} | state)
        ended = self.step == self.total_steps
        due = self.step % (self.config.eval_every or self.steps_per_epoch) == 0
        if ended or (due and self.step >= self.config.eval_from):
            self._evaluate()
        epoch_over = self.step % self.steps_per_epoch == 0
        if ended or epoch_over or (self.config.save_every and self.step % self.config.save_every == 0):
            self._save()

    def _evaluate(self) -> None:
        with self.autocast():
            dev = self.evaluate(self.model)
        cuda = self.accelerator.device.type == "cuda"
        self.lines.append(
            {
                "step": self.step,
                "epoch": self.step / self.steps_per_epoch,
                "train_loss": sum(self.losses) / len(self.losses) if self.losses else None,
                "learning_rate": self.learning_rate if self.step else None,
                "gradient_norm": self.gradient_norm if self.step else None,
                "dev": dev,
                "seconds": self.seconds,
                "examples_per_second": self.examples / self.seconds if self.seconds else None,
                "peak_memory_bytes": torch.cuda.max_memory_allocated() if cuda else None,
            }
        )
        self.losses = []
        self._write_lines()
        self._note("dev", dev)
        metric = self.task.metrics[0]
        self._show(step=self.step, total=self.total_steps, metric=f"{metric} {dev[metric]:.3f}")
        if self.step > 0 and dev[metric] > self.best:
            self.best = dev[metric]
            self._save_model("best")
        if self._on_point is not None and self.processes.first:
            self._on_point(self.history[-1])

    def _save_model(self, name: str) -> None:
        if self.config.out is None or not self.config.keep_weights:
            return
        weights = self._weights()
        if self.folder is not None:
            save_checkpoint(self.folder / name, self.model, self.tokenizer, weights=weights)

    def _weights(self) -> dict[str, Tensor]:
        return full_weights(self.model) if is_sharded(self.model) else self.model.state_dict()

    def _write_lines(self) -> None:
        if self.folder is not None:
            write_text(self.folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in self.lines))

    def _note(self, part: str, values: dict[str, float]) -> None:
        named = {f"{part}/{name}": value for name, value in values.items()}
        if self._events is not None:
            self._events.add(self.step, named)
        self._trackers.add(self.step, named)

    def _identity(self) -> dict[str, Any]:
        return _identity(self.config, self.task) | {"model": own_class(self.model).__name__}

    def _save(self) -> None:
        if self.config.out is None:
            return
        if self._observer is not None:
            self._observer.saving()
        if self._events is not None:
            self._events.flush()
        mine = random_states(self.processes) | {"sampling": sampling_state(self.model)}
        first, *others = self.processes.gathered(mine)
        weights, optimizer = None, None
        if self.config.keep_weights or self.step < self.total_steps:
            weights, optimizer = self._weights(), full_state_dict(self.optimizer.state_dict())
        self._saved_at = self.step
        if self.folder is None:
            return
        save_state(
            self.folder / "state.pt",
            {
                "identity": self._identity(),
                "progress": {name: getattr(self, name) for name in _PROGRESS},
                "model": weights,
                "optimizer": optimizer,
                "scheduler": self.scheduler.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random": first,
                "random_others": others,
                "gradient_norms": None if self.gradient_norms is None else self.gradient_norms.state_dict(),
            },
        )

    def _restore(self) -> None:
        path = Path(self.config.out or ".") / "state.pt"
        state = load_state(path)
        _refuse_other(self._identity(), state["identity"], path.parent)
        if state["model"] is not None:
            self._load_weights(state, path)
        elif self.config.keep_weights:
            raise InputError(
                f"resume: the run in {path.parent} is over and kept no weights; only its result can be read"
            )
        self.scheduler.load_state_dict(state["scheduler"])
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        for name, value in state["progress"].items():
            setattr(self, name, value)
        self._saved_at = self.step
        saved = [state["random"], *state.get("random_others", [])]  # a run from before there were others has none
        resume_random_states(saved, self.processes, self.config.seed, self.step)
        sampling = saved[min(self.processes.rank, len(saved) - 1)].get("sampling")
        if sampling is not None:  # a run from before layers had draws of their own has none
            load_sampling_state(self.model, sampling)
        if self.gradient_norms is not None:
            self.gradient_norms.load_state_dict(state["gradient_norms"])
        self._write_lines()

    def _load_weights(self, state: dict[str, Any], path: Path) -> None:
        try:
            load_full_weights(self.model, state["model"])
        except RuntimeError:
            raise InputError(f"resume: the model of the run in {path.parent} had other layers or sizes") from None
        load_full_optimizer(self.optimizer, state["optimizer"])


def _identity(config: FinetuneConfig, task: TaskData) -> dict[str, Any]:
    """What a run that goes on must have in common with the one that was stopped, the model's class aside."""
    return {
        "config": config.identity(),
        "task": task.name,
        "train": len(task.train),
        "dev": len(task.dev),
        "examples": digest(task),
    }


def _refuse_other(ours: dict[str, Any], theirs: dict[str, Any], folder: Path) -> None:
    before = {
        "scores": "row-norms",
        "lora_fa": False,
        "mask_floor": MASK_FLOOR,
        "budget_of": "all-rows",
        "min_rows": 0,
        "masked_gradient": "warn",
        "lean": None,
        "plan": None,
        "optimizer": "adamw",
        "eval_from": 0,
        "dev_loss": False,
    }
    for key, value in before.items():  # of a run from before there were others
        theirs["config"].setdefault(key, value)
    theirs["config"]["scores"] = hyphenated(theirs["config"]["scores"])  # of a run from before they had hyphens
    for mine, other, prefix in ((ours, theirs, ""), (ours["config"], theirs["config"], "config ")):
        for key in mine:
            if key != "config" and mine[key] != other.get(key):
                raise InputError(
                    f"resume: {prefix}{key}={mine[key]!r}, but the run in {folder} had {other.get(key)!r}"
                )


def _prepared(model: PreTrainedModel, config: FinetuneConfig) -> PreTrainedModel | PeftModel:
    if config.lora_rank is None:
        return model
    return add_lora(
        model,
        config.lora_rank,
        alpha=config.lora_alpha,
        layers=config.layers,
        frozen_a=config.lora_fa,
        seed=config.seed,
    )


def _convert(model: nn.Module, config: FinetuneConfig) -> LeanConversion | None:
    """Convert as the config says; what is lean then, None if nothing was to be."""
    estimator = config.estimator if config.plan is None else config.plan
    if estimator is None:
        return None if config.lean is None else lean_(model, **LeanOptions.parse(config.lean).arguments())
    layers = None if config.lora_rank is not None else config.layers  # those with adapters
    return approximate_(
        model,
        estimator,
        filter_fn=filter_of(model, layers),
        scores=config.scores,
        seed=config.seed,
        mask_floor=config.mask_floor,
        budget_of=config.budget_of,
        min_rows=config.min_rows,
        masked_gradient=config.masked_gradient,
        lean=config.lean or False,
    ).lean


def _inputs(config: FinetuneConfig) -> dict[str, str]:
    left_out = [
        ("layers", None),
        ("lean", None),
        ("scores", "row-norms"),
        ("mask_floor", MASK_FLOOR),
        ("budget_of", "all-rows"),
        ("min_rows", 0),
        ("masked_gradient", "warn"),
        ("lora_rank", None),
        ("lora_alpha", None),
        ("lora_fa", False),
        ("plan", None),
    ]
    told = config.identity() | ({} if config.plan is None else {"plan": config.plan.digest})
    return {key: str(v) for key, v in told.items() if key != "seed" and (key, v) not in left_out}
