"""Padded batches: those of transformers' collators, always on the right."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from support.runs import NUMBERS, TASK
from torch import Tensor
from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding, PreTrainedTokenizerBase

from wtacrs.integration.context.module_calls import EXAMPLE_IDS
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.encoding import Encoded, collate, encode


def batch_of(task: TaskData, tokenizer: PreTrainedTokenizerBase, *, text_to_text: bool) -> list[Encoded]:
    found = encode(task.train[3:9], tokenizer, text_to_text=text_to_text, max_length=24)
    assert len({len(example) for example in found}) > 1
    return found


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.equal(tensor, theirs[name]), name


def test_text_to_text_batches_are_those_of_the_library(tokenizer: PreTrainedTokenizerBase) -> None:
    batch = batch_of(TASK, tokenizer, text_to_text=True)
    batch[0] = Encoded(batch[0].features, [*(batch[0].target or []), 5], batch[0].label)
    features = [{**example.features, "labels": example.target} for example in batch]
    assert_same(collate(batch, tokenizer), dict(DataCollatorForSeq2Seq(tokenizer)(features)))


@pytest.mark.parametrize("task", [TASK, NUMBERS])
def test_classification_batches_are_those_of_the_library(
    task: TaskData, tokenizer: PreTrainedTokenizerBase
) -> None:
    batch = batch_of(task, tokenizer, text_to_text=False)
    features = [{**example.features, "label": example.label} for example in batch]
    theirs = dict(DataCollatorWithPadding(tokenizer)(features))
    assert_same(collate(batch, tokenizer, regression=task.labels is None), theirs)


def test_padding_is_on_the_right_whatever_the_tokenizer_says(tokenizer: PreTrainedTokenizerBase) -> None:
    left = deepcopy(tokenizer)
    left.padding_side = "left"
    batch = batch_of(TASK, tokenizer, text_to_text=True)
    assert_same(collate(batch, left), collate(batch, tokenizer))


def test_ids_are_positions_among_the_encoded(tokenizer: PreTrainedTokenizerBase) -> None:
    batch = batch_of(TASK, tokenizer, text_to_text=True)[2:4]
    assert collate(batch, tokenizer, ids=True)[EXAMPLE_IDS].tolist() == [2, 3]
