"""Task and model as the command line names them: what is opened, and what is refused before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wtacrs.estimators import InputError
from wtacrs.integration.models.loading import (
    SMALL_T5,
    check_local,
    check_writes_text,
    load_model,
    load_tokenizer,
    small_t5,
    task_tokenizer,
    without_place,
)
from wtacrs.integration.models.small_models import (
    check_new,
    check_new_writes_text,
    is_new,
    new_model,
    new_model_name,
)
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.loading import check_limits, load_task
from wtacrs.integration.tasks.own_files import OwnFiles, own_task
from wtacrs.validation.seeds import checked_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Subject:
    """Names of task, model and tokenizer, as the command line takes them.

    `files` are somebody's own, in place of `task` and `data`. `held_out` is as in `load_task`. `tell` is called with a
    line on what was found in them, and on a new classification head.
    """

    task: str = "docstrings"
    data: Path | None = None
    model: str | None = None
    tokenizer: str | None = None
    train_limit: int | None = None
    dev_limit: int | None = None
    files: OwnFiles | None = None
    held_out: int | None = None
    tell: Callable[[str], None] | None = field(default=None, compare=False, repr=False)

    def load(self, seed: int = 0, *, needs_dev: bool = True) -> TaskData:
        """The task; the seed decides which examples a limit keeps.

        Own files may come without dev examples where none are needed.

        Raises:
            InputError: if it cannot be loaded, or the model's name is unusable.
        """
        check_model(self.model, self.tokenizer, free_text=self.writes_text)
        check_limits(self.train_limit, self.dev_limit)
        if self.files is None:
            limits = {name: getattr(self, name) for name in ("train_limit", "dev_limit", "held_out")}
            return load_task(self.task, data=self.data, seed=seed, **limits)
        task = own_task(
            self.files, train_limit=self.train_limit, dev_limit=self.dev_limit, seed=seed, needs_dev=needs_dev
        )
        if self.tell is not None:
            self.tell(f"{task.description}; {task.source}")
        return task

    @property
    def writes_text(self) -> bool:
        """Whether answers are texts, which not every model can write."""
        return self.files is not None and self.files.target is not None

    def open(self, task: TaskData, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """A fresh model with its tokenizer; the seed decides new weights.

        Raises:
            InputError: if it cannot be loaded.
        """
        return open_model(self.model, self.tokenizer, task, seed, tell=self.tell)

    @property
    def name(self) -> str:
        """What results call the model that `open` gives."""
        if self.model is None:
            return SMALL_T5
        return new_model_name(self.model) if is_new(self.model) else without_place(self.model)

    @property
    def described(self) -> dict[str, str]:
        """What a stamp says of it."""
        names = ("model", "tokenizer", "train_limit", "dev_limit", "held_out")
        task = {"task": self.task} if self.data is None else {"task": self.task, "data": str(self.data)}
        told = task | {name: str(value) for name in names if (value := getattr(self, name)) is not None}
        if self.files is not None:
            told.pop("task")
        own = {} if self.files is None else self.files.described
        return {key: without_place(value) for key, value in told.items()} | own


def open_model(
    model: str | None,
    tokenizer: str | None,
    task: TaskData,
    seed: int,
    *,
    new_vocabulary: Callable[[TaskData], PreTrainedTokenizerBase] = task_tokenizer,
    tell: Callable[[str], None] | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The named model with its tokenizer; without a name a small new T5, with a given or a new vocabulary.

    Args:
        model: name of a checkpoint, or one such as "new:bert" (`wtacrs.integration.models.small_models`) for a small new
            model of that architecture.
        tokenizer: name of the vocabulary of a new model.
        task: gives a head its outputs and a new vocabulary its texts.
        seed: of new weights.
        new_vocabulary: makes the vocabulary where none is named.
        tell: called with a line where a checkpoint gets a new classification head.

    Raises:
        InputError: if something cannot be loaded, or a tokenizer is named beside a checkpoint, which has its own.
    """
    seed = checked_seed(seed)
    if model is not None and not is_new(model):
        _refuse_tokenizer(tokenizer)
        return load_model(model, task, seed=seed, tell=tell)
    vocabulary = new_vocabulary(task) if tokenizer is None else load_tokenizer(tokenizer)
    if model is not None:
        return new_model(model, vocabulary, task, seed=seed), vocabulary
    return small_t5(vocabulary, seed=seed), vocabulary


def check_model(model: str | None, tokenizer: str | None, *, free_text: bool = False) -> None:
    """Refuse, before any task is read, what `open_model` would refuse without reading weights.

    With `free_text` the model must be one that writes text.

    Raises:
        InputError: as `open_model`.
    """
    if model is not None and is_new(model):
        check_new(model)
        if free_text:
            check_new_writes_text(model)
        model = None
    if model is not None:
        _refuse_tokenizer(tokenizer)
    for argument, name in (("model", model), ("tokenizer", tokenizer)):
        if name is not None:
            check_local(argument, name)
    if free_text and model is not None:
        check_writes_text(model)


def _refuse_tokenizer(tokenizer: str | None) -> None:
    if tokenizer is not None:
        raise InputError(f"tokenizer={tokenizer!r}: --model brings its own; --tokenizer is for the small new T5")
