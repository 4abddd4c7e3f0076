"""One fine-tuning run of a named model on a named task, in as many processes as were started together."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wtacrs.estimators import InputError, WtacrsWarning
from wtacrs.integration.layers.estimated_weight_grad import MIN_ELEMENTS
from wtacrs.integration.layers.least_elements import is_too_small
from wtacrs.integration.layers.linear_layers import fitting_layers, layer_input
from wtacrs.integration.models.loading import is_text_to_text
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.parallel.processes import Processes
from wtacrs.integration.progress import is_progress_hidden
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.batches import task_batches
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.integration.training.evaluation import answer_length
from wtacrs.integration.training.run import finetune
from wtacrs.integration.training.run_settings import save_settings
from wtacrs.validation.dry_run import begin_work, is_dry_run
from wtacrs.validation.files import check_folder
from wtacrs.validation.records.base import counted
from wtacrs.validation.records.receipt import Receipt
from wtacrs.validation.records.training import TrainingPoint, TrainingResult
from wtacrs.validation.summaries.training import majority_warning

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def finetune_study(
    config: FinetuneConfig,
    subject: Subject,
    *,
    overwrite: bool = False,
    on_receipt: Callable[[Receipt], None] | None = None,
) -> TrainingResult:
    """Open task and model, and train; shows progress, or on what is no terminal a line per evaluation.

    Args:
        config: how to train.
        subject: task and model.
        overwrite: replace a run that is in the folder.
        on_receipt: as in `finetune`.

    Raises:
        InputError: on anything that cannot be loaded or used, and on a folder that holds a run already.
    """
    processes = Processes.started()
    try:
        task, model, tokenizer = processes.run_on_all(partial(_opened, config, subject, overwrite))
        begin_work(*(_planned(config, subject, task, model, tokenizer) if is_dry_run() else ()))
        if config.out is not None and not config.resume and processes.first:
            length = answer_length(task, tokenizer) if is_text_to_text(model) else None
            save_settings(config.out, config, subject, task, answer_length=length)
        on_point = None if sys.stderr.isatty() else _print_point
        result = finetune(config, task, model, tokenizer, progress=True, on_point=on_point, on_receipt=on_receipt)
        if (told := majority_warning(result)) is not None and processes.first:
            warnings.warn(told, WtacrsWarning, stacklevel=2)
        return result
    finally:
        processes.end()


def _opened(
    config: FinetuneConfig, subject: Subject, overwrite: bool
) -> tuple[TaskData, PreTrainedModel, PreTrainedTokenizerBase]:
    if config.resume and overwrite:
        raise InputError("--resume and --overwrite contradict each other")
    if config.out is not None:
        check_folder("out", config.out)
        if not (config.resume or overwrite) and any(
            (config.out / f).exists() for f in ("state.pt", "result.json")
        ):
            raise InputError(f"out={config.out} holds a run already: --resume it, --overwrite it, or name another")
        if config.resume and not (config.out / "state.pt").exists():
            raise InputError(f"out={config.out}: there is no state.pt to resume from")
    task = subject.load(config.seed)
    return task, *subject.open(task, config.seed)


def _planned(
    config: FinetuneConfig,
    subject: Subject,
    task: TaskData,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> Iterator[str]:
    batches = counted(math.ceil(len(task.train) / config.batch_size), "batch", "batches")
    length = f"{config.epochs:g} epochs of {batches}" if config.steps is None else counted(config.steps, "step")
    yield f"{subject.name} on {task.name}: {len(task.train):,} train and {len(task.dev):,} dev examples, {length}"
    if config.estimator is not None:
        yield f"dW by {config.estimator} in {_sampled(config, task, model, tokenizer)}"
    if config.out is not None:
        yield "continued from its saved state" if config.resume else "trained from the start"
        yield f"writes {config.out / 'result.json'}, {config.out / 'best'}, {config.out / 'last'}"


def _sampled(
    config: FinetuneConfig, task: TaskData, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> str:
    """How many linear layers of those that are asked for have inputs large enough in a batch of this size."""
    asked = fitting_layers(model, config.layers or ["*"])
    if config.lora_rank is not None:
        return f"the adapters of {counted(len(asked), 'linear layer')}"
    large = [
        name for name, x in _inputs(config, task, model, tokenizer, asked).items()
        if not is_too_small(x, MIN_ELEMENTS, config.min_rows)
    ]  # fmt: skip
    if len(large) == len(asked):
        return counted(len(asked), "linear layer")
    least = f"{MIN_ELEMENTS:,} numbers" + (f" or {config.min_rows:,} rows" if config.min_rows else "")
    return f"{len(large)} of {counted(len(asked), 'linear layer')}; inputs of the others have fewer than {least}"


def _inputs(
    config: FinetuneConfig,
    task: TaskData,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    layers: Sequence[str],
) -> dict[str, Tensor]:
    """What the layers that a forward pass reaches are given, as tensors without memory."""
    found: dict[str, Tensor] = {}

    def note(name: str, layer: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        found[name] = layer_input(layer, args, kwargs).to("meta")

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(partial(note, name), with_kwargs=True)
        for name in layers
    ]
    (batch,) = task_batches(
        task,
        tokenizer,
        text_to_text=is_text_to_text(model),
        batches=1,
        batch_size=min(config.batch_size, len(task.train)),
        max_length=config.max_length,
        seed=config.seed,
    )
    try:
        with torch.no_grad():
            model(**{name: value.to(model.device) for name, value in batch.items()})
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _print_point(point: TrainingPoint) -> None:
    if is_progress_hidden():
        return
    loss = "" if point.train_loss is None else f"loss {point.train_loss:.4f}, "
    dev = ", ".join(f"{name} {value:.4f}" for name, value in point.dev.items())
    print(f"step {point.step}: {loss}{dev}", file=sys.stderr)
