"""What the layers of a model compute on batches of a task, at the start or after some steps of exact training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wtacrs.estimators import InputError
from wtacrs.integration.layers.linear_layers import filter_of, fitting_layers
from wtacrs.integration.measure.capture import capture
from wtacrs.integration.models.loading import is_text_to_text, model_name
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.tasks.base import TaskData, examples_digest
from wtacrs.integration.tasks.batches import require_examples, task_batches, without_captured
from wtacrs.integration.training.before_capture import check_age, train_for_capture
from wtacrs.integration.training.defaults import LEARNING_RATE
from wtacrs.validation.dry_run import begin_work
from wtacrs.validation.files import check_folder
from wtacrs.validation.layers.captures import Captures
from wtacrs.validation.records.base import counted
from wtacrs.validation.runner import Report
from wtacrs.validation.seeds import checked_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def capture_study(
    subject: Subject,
    out: Path,
    *,
    batches: int = 1,
    batch_size: int = 32,
    max_length: int = 128,
    by_length: bool = False,
    layers: Sequence[str] | None = None,
    after: int | None = None,
    age: int | None = None,
    lr: float = LEARNING_RATE,
    seed: int = 0,
    report: Report | None = None,
) -> Captures:
    """Open task and model, train the model if `after` says so, and capture it.

    Training sees other examples than those that are captured.

    Args:
        subject: task and model.
        out: the file.
        batches: that are captured.
        batch_size: examples per batch.
        max_length: longest input, in tokens.
        by_length: examples are sorted by length, see `task_batches`.
        layers: patterns of the names of layers; all if None.
        after: first train exactly for so many steps.
        age: also keep the gradient norms of so many steps before the end of that training.
        lr: learning rate of that training.
        seed: of batches, new weights, training and dropout.
        report: called after every batch.

    Raises:
        InputError: on anything that cannot be loaded or used; what needs no model is checked before one is opened.
    """
    seed = checked_seed(seed)
    if out.is_dir():
        raise InputError(f"out={out} is a folder; the name of a file is needed")
    check_age(after, age)
    check_folder("out", out.parent)
    task = subject.load(needs_dev=False)
    require_examples(task, batches, batch_size)
    rest = task if after is None else without_captured(task, batches * batch_size, seed)
    model, tokenizer = subject.open(task, seed)
    if layers is not None:
        fitting_layers(model, layers)
    sizes = {"batch_size": batch_size, "max_length": max_length}
    begin_work(
        f"{model_name(model)} on {task.name}: {counted(after or 0, 'step')} of training, then "
        f"{counted(batches, 'batch', 'batches')} of {counted(batch_size, 'example')} captured in "
        f"{counted(len(fitting_layers(model, layers or ['*'])), 'layer')}",
        f"writes {out}",
    )
    earlier, metadata = None, {}
    if after is not None:
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
        **sizes,
        by_length=by_length,
        layers=layers,
        seed=seed,
        earlier=earlier,
        metadata=metadata,
        report=report,
    )


def capture_task(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskData,
    out: Path,
    *,
    batches: int,
    batch_size: int,
    max_length: int,
    by_length: bool = False,
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
    seed = checked_seed(seed)
    torch.manual_seed(seed)
    model.train()
    if earlier is not None:
        earlier.train()
    sizes = {"batches": batches, "batch_size": batch_size, "max_length": max_length, "seed": seed}
    prepared = task_batches(task, tokenizer, by_length, text_to_text=is_text_to_text(model), **sizes)
    told = sizes | ({"by_length": True} if by_length else {})
    return capture(
        model,
        prepared,
        out,
        earlier=earlier,
        filter_fn=filter_of(model, layers),
        metadata={"model": model_name(model), "task": task.name, **_given(task), **told, **(metadata or {})},
        progress=None if report is None else lambda done: report("", done, batches),
    )


def _given(task: TaskData) -> dict[str, Any]:
    """What the file says of own examples: names of files and columns, and a hash of those for training."""
    return {"files": dict(task.given), "examples": examples_digest(task.train)} if task.given else {}
