"""What `wtacrs capture` and `wtacrs finetune` do, once their options are read."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wtacrs.estimators import InputError
from wtacrs.integration.layers.linear_layers import filter_of, fitting_layers
from wtacrs.integration.measure.capture import capture
from wtacrs.integration.models.loading import (
    check_local,
    is_text_to_text,
    load_model,
    load_tokenizer,
    model_name,
    small_t5,
    task_tokenizer,
)
from wtacrs.integration.models.small_models import check_new, is_new, new_model
from wtacrs.integration.parallel.processes import Processes
from wtacrs.integration.tasks.encoding import collate, encode
from wtacrs.integration.tasks.tasks import TaskData, load_task
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.integration.training.run import finetune
from wtacrs.integration.training.trained_states import check_age, train_for_capture
from wtacrs.validation.layers.captures import Captures
from wtacrs.validation.records.training import TrainingPoint, TrainingResult
from wtacrs.validation.runner import Report

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def open_model(
    model: str | None, tokenizer: str | None, task: TaskData, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The named model with its tokenizer; without a name a small new T5, with a given or a new vocabulary.

    A name such as "new:bert" (`wtacrs.integration.models.small_models`) asks for a small new model of that architecture.

    Raises:
        InputError: if something cannot be loaded, or a tokenizer is named beside a model, which has its own.
    """
    if model is not None and not is_new(model):
        if tokenizer is not None:
            raise InputError(
                f"tokenizer={tokenizer!r}: --model brings its own; --tokenizer is for the small new T5"
            )
        return load_model(model, task, seed=seed)
    vocabulary = task_tokenizer(task) if tokenizer is None else load_tokenizer(tokenizer)
    if model is not None:
        return new_model(model, vocabulary, task, seed=seed), vocabulary
    return small_t5(vocabulary, seed=seed), vocabulary


def check_folder(argument: str, path: Path) -> None:
    """Refuse, before any work is done, a folder that cannot be written to; it is made if need be.

    Raises:
        InputError: naming the option, the path and the reason.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"{argument}={path} is a file; a folder is needed") from None
    except OSError as error:
        raise InputError(f"{argument}={path} cannot be made: {error.strerror or error}") from None
    if not os.access(path, os.W_OK):
        raise InputError(f"{argument}={path} cannot be written to")


def check_model(model: str | None, tokenizer: str | None) -> None:
    """Refuse, before any task is read, what `open_model` would refuse without looking into a file.

    Raises:
        InputError: as `open_model`.
    """
    if model is not None and is_new(model):
        check_new(model)
        model = None
    if model is not None and tokenizer is not None:
        raise InputError(f"tokenizer={tokenizer!r}: --model brings its own; --tokenizer is for the small new T5")
    for argument, name in (("model", model), ("tokenizer", tokenizer)):
        if name is not None:
            check_local(argument, name)


def task_batches(
    task: TaskData,
    tokenizer: PreTrainedTokenizerBase,
    *,
    text_to_text: bool,
    batches: int,
    batch_size: int,
    max_length: int,
    seed: int,
) -> Iterator[dict[str, Tensor]]:
    """Batches of training examples in an order that the seed decides.

    Raises:
        InputError: if there are too few examples.
    """
    wanted = batches * batch_size
    if wanted > len(task.train):
        raise InputError(
            f"batches={batches} of batch_size={batch_size} need {wanted} examples; "
            f"{task.name} has {len(task.train)} for training"
        )
    order = _order(task, seed)[:wanted]
    encoded = encode([task.train[i] for i in order], tokenizer, text_to_text=text_to_text, max_length=max_length)
    for first in range(0, wanted, batch_size):
        yield collate(encoded[first : first + batch_size], tokenizer, regression=task.labels is None)


def _order(task: TaskData, seed: int) -> list[int]:
    return torch.randperm(len(task.train), generator=torch.Generator().manual_seed(seed)).tolist()


def without_captured(task: TaskData, captured: int, seed: int) -> TaskData:
    """The task without the training examples that `task_batches` takes first with this seed.

    Raises:
        InputError: if none is left to train on.
    """
    rest = sorted(_order(task, seed)[captured:])
    if not rest:
        raise InputError(
            f"{task.name}: all {len(task.train)} training examples are captured, none is left to train on"
        )
    return replace(task, train=tuple(task.train[i] for i in rest))


def capture_task(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskData,
    out: Path,
    *,
    batches: int,
    batch_size: int,
    max_length: int,
    layers: Sequence[str] | None = None,
    seed: int = 0,
    earlier: PreTrainedModel | None = None,
    metadata: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> Captures:
    """Capture a model in training mode (dropout on) on batches of a task; seeds torch for the dropout.

    `earlier`, the model at an earlier state, gives the stale norms; `metadata` is kept in the file besides the options.

    Raises:
        InputError: as `capture` and `task_batches`.
    """
    torch.manual_seed(seed)
    model.train()
    if earlier is not None:
        earlier.train()
    prepared = task_batches(
        task,
        tokenizer,
        text_to_text=is_text_to_text(model),
        batches=batches,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
    )
    described = {
        "model": model_name(model),
        "task": task.name,
        "batches": batches,
        "batch_size": batch_size,
        "max_length": max_length,
        "seed": seed,
        **(metadata or {}),
    }
    return capture(
        model,
        prepared,
        out,
        earlier=earlier,
        filter_fn=filter_of(model, layers),
        metadata=described,
        progress=None if report is None else lambda done: report("", done, batches),
    )


def capture_command(
    out: Path,
    task_name: str,
    data: Path | None,
    model_name: str | None,
    tokenizer_name: str | None,
    batches: int,
    batch_size: int,
    max_length: int,
    layers: Sequence[str] | None,
    seed: int,
    report: Report,
    *,
    after: int | None = None,
    age: int | None = None,
    lr: float = 3e-4,
) -> Captures:
    """Load task and model, train it if `after` says so, and capture.

    Training sees other examples than those that are captured.

    Raises:
        InputError: on anything that cannot be loaded or used.
    """
    if out.is_dir():
        raise InputError(f"out={out} is a folder; the name of a file is needed")
    check_age(after, age)
    check_folder("out", out.parent)
    check_model(model_name, tokenizer_name)
    task = load_task(task_name, data=data)
    model, tokenizer = open_model(model_name, tokenizer_name, task, seed)
    if layers is not None:
        fitting_layers(model, layers)
    earlier, metadata = None, {}
    if after is not None:
        sizes = {"batch_size": batch_size, "max_length": max_length}
        rest = without_captured(task, batches * batch_size, seed)
        earlier = train_for_capture(
            model, tokenizer, rest, steps=after, age=age, lr=lr, seed=seed, progress=True, **sizes
        )
        metadata = {"step": after, "lr": lr} | ({} if age is None else {"age": age})
    return capture_task(
        model,
        tokenizer,
        task,
        out,
        batches=batches,
        batch_size=batch_size,
        max_length=max_length,
        layers=layers,
        seed=seed,
        earlier=earlier,
        metadata=metadata,
        report=report,
    )


def finetune_command(
    config: FinetuneConfig,
    task_name: str,
    data: Path | None,
    model_name: str | None,
    tokenizer_name: str | None,
    *,
    train_limit: int | None,
    dev_limit: int | None,
    overwrite: bool,
) -> TrainingResult:
    """Load task and model, and train, in as many processes as were started together.

    Raises:
        InputError: on anything that cannot be loaded or used, and on a folder that holds a run already.
    """
    processes = Processes.started()
    try:
        load = partial(
            _load, config, task_name, data, model_name, tokenizer_name, train_limit, dev_limit, overwrite
        )
        task, model, tokenizer = processes.run_on_all(load)
        tell = None if sys.stderr.isatty() else _tell
        return finetune(config, task, model, tokenizer, progress=True, on_point=tell)
    finally:
        processes.end()


def _load(
    config: FinetuneConfig,
    task_name: str,
    data: Path | None,
    model_name: str | None,
    tokenizer_name: str | None,
    train_limit: int | None,
    dev_limit: int | None,
    overwrite: bool,
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
    check_model(model_name, tokenizer_name)
    task = load_task(task_name, data=data, train_limit=train_limit, dev_limit=dev_limit, seed=config.seed)
    return task, *open_model(model_name, tokenizer_name, task, config.seed)


def _tell(point: TrainingPoint) -> None:
    """A line per evaluation, for a log: the progress line is for terminals only."""
    loss = "" if point.train_loss is None else f"loss {point.train_loss:.4f}, "
    print(f"step {point.step}: {loss}{', '.join(f'{name} {value:.4f}' for name, value in point.dev.items())}")
