"""Batches of real text for any model: windows of one stream of tokens, without padding, every label counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.models.loading import DEMO_VOCAB_SIZE, task_tokenizer
from wtacrs.integration.tasks.base import TaskData

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def text_windows(
    model: PreTrainedModel,
    task: TaskData,
    *,
    batches: int,
    batch_size: int,
    length: int,
    target_length: int | None,
) -> list[dict[str, Tensor]]:
    """Cut the training texts of a task into windows: an input, and for an encoder–decoder the tokens that follow it.

    A decoder writes its input, a classifier gets the class that its label stands for. Tokens are those of a vocabulary
    that is trained on the texts.

    Args:
        model: whose vocabulary bounds the one that is trained.
        task: with enough texts.
        batches: how many.
        batch_size: windows of each.
        length: tokens of an input.
        target_length: tokens of an answer; None for a model that has none.

    Raises:
        InputError: if the texts are too short.
    """
    vocabulary = min(model.config.get_text_config().vocab_size, DEMO_VOCAB_SIZE)
    tokenizer = task_tokenizer(task, vocabulary)
    stream = [token for example in task.train for token in tokenizer(example.text)["input_ids"]]
    width, count = length + (target_length or 0), batches * batch_size
    if len(stream) < count * width:
        raise InputError(
            f"batches={batches} of batch_size={batch_size} windows need {count * width:,} tokens; "
            f"the texts of {task.name} have {len(stream):,}: ask for fewer or shorter ones"
        )
    windows = torch.tensor(stream[: count * width]).view(batches, batch_size, width)
    classes = torch.tensor([example.label or 0 for example in task.train[:count]]).view(batches, batch_size)
    return [_batch(model, *found, length, target_length) for found in zip(windows, classes, strict=True)]


def _batch(
    model: PreTrainedModel, window: Tensor, classes: Tensor, length: int, target_length: int | None
) -> dict[str, Tensor]:
    ids = window[:, :length].contiguous()
    labels = ids.clone()
    if target_length is not None:
        labels = window[:, length:].contiguous()
    elif model.get_output_embeddings() is None:
        labels = (classes.long() % model.config.num_labels).contiguous()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
