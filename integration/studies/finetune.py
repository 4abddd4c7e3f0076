"""One fine-tuning run of a named model on a named task, in as many processes as were started together."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from wtacrs.estimators import InputError, WtacrsWarning
from wtacrs.integration.layers.linear_layers import fitting_layers
from wtacrs.integration.models.loading import is_text_to_text
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.parallel.processes import Processes
from wtacrs.integration.progress import is_progress_hidden
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.integration.training.evaluation import answer_length
from wtacrs.integration.training.run import finetune
from wtacrs.integration.training.run_settings import save_settings
from wtacrs.validation.dry_run import begin_work
from wtacrs.validation.files import check_folder
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
        begin_work(*_planned(config, subject, task, model))
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


def _planned(config: FinetuneConfig, subject: Subject, task: TaskData, model: PreTrainedModel) -> Iterator[str]:
    batches = math.ceil(len(task.train) / config.batch_size)
    length = f"{config.epochs:g} epochs of {batches} batches" if config.steps is None else f"{config.steps} steps"
    yield f"{subject.name} on {task.name}: {len(task.train):,} train and {len(task.dev):,} dev examples, {length}"
    if config.estimator is not None:
        layers = fitting_layers(model, config.layers or ["*"])
        yield f"dW by {config.estimator} in {len(layers)} linear layers"
    if config.out is not None:
        yield "continued from its saved state" if config.resume else "trained from the start"
        yield f"writes {config.out / 'result.json'}, {config.out / 'best'}, {config.out / 'last'}"


def _print_point(point: TrainingPoint) -> None:
    if is_progress_hidden():
        return
    loss = "" if point.train_loss is None else f"loss {point.train_loss:.4f}, "
    dev = ", ".join(f"{name} {value:.4f}" for name, value in point.dev.items())
    print(f"step {point.step}: {loss}{dev}", file=sys.stderr)
