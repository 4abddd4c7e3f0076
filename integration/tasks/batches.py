"""Batches of a task's training examples in an order that a seed decides: what is captured and measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.encoding import collate, encode
from wtacrs.validation.seeds import checked_seed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def task_batches(
    task: TaskData,
    tokenizer: PreTrainedTokenizerBase,
    by_length: bool = False,
    /,
    *,
    text_to_text: bool,
    batches: int,
    batch_size: int,
    max_length: int,
    seed: int,
) -> Iterator[dict[str, Tensor]]:
    """Yield `batches` batches of training examples in an order that the seed decides, as `collate` makes them.

    A batch is as long as its longest example: the others are padded. By length the same examples are sorted, cut, and the
    batches shuffled: training does that with larger pools of examples, and has little padding.

    Raises:
        InputError: as `require_examples` and `encode`.
    """
    seed = checked_seed(seed)
    require_examples(task, batches, batch_size)
    order = _order(task, seed)[: batches * batch_size]
    encoded = encode(
        [task.train[i] for i in order],
        tokenizer,
        text_to_text=text_to_text,
        max_length=max_length,
        target_limit=task.target_limit,
    )
    if by_length:
        encoded.sort(key=len)
    for number in _shuffled(batches, seed) if by_length else range(batches):
        first = number * batch_size
        yield collate(encoded[first : first + batch_size], tokenizer, regression=task.regression)


def require_examples(task: TaskData, batches: int, batch_size: int) -> None:
    """Refuse more batches than the training examples fill.

    Raises:
        InputError: naming `batches`, and how many examples there are.
    """
    wanted = batches * batch_size
    if wanted > len(task.train):
        raise InputError(
            f"batches={batches} of batch_size={batch_size} need {wanted} examples; "
            f"{task.name} has {len(task.train)} for training"
        )


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


def _order(task: TaskData, seed: int) -> list[int]:
    return _shuffled(len(task.train), seed)


def _shuffled(count: int, seed: int) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
