"""Examples to token ids, and token ids to padded batches."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wtacrs.estimators.core.errors import InputError, WtacrsWarning
from wtacrs.integration.context.masks import IGNORED_LABEL
from wtacrs.integration.context.module_calls import EXAMPLE_IDS
from wtacrs.integration.tasks.base import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoded:
    """One tokenized example: the tokenizer's features, each a list of as many numbers, and what to predict.

    `target` holds token ids for text-to-text, else it is None and `label` is the label's index or number (0 for free
    text). `index` is the example's position in what was encoded.
    """

    features: dict[str, list[int]]
    target: list[int] | None
    label: float
    index: int = 0

    def __len__(self) -> int:
        return len(self.features["input_ids"])


def encode(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    text_to_text: bool,
    max_length: int,
    target_limit: int | None = None,
) -> list[Encoded]:
    """Tokenize examples, inputs cut to `max_length` tokens (the longer part of a pair first).

    Text-to-text models get the prefixed text, others the bare parts. Targets are cut to `target_limit` tokens, and a
    warning counts those that were. Raises `InputError` if `max_length` leaves
    no room for text, or is more than a model with a classification head can read.
    """
    parts = 1 if text_to_text else len(examples[0].parts)
    least = tokenizer.num_special_tokens_to_add(pair=parts == 2) + parts
    # relative positions have no end, whatever the tokenizer of a text-to-text model says
    most = None if text_to_text else tokenizer.model_max_length
    if max_length < least or (most is not None and max_length > most):
        known = f" to {most:,}, what the model reads" if most is not None and most < 1e9 else ""
        raise InputError(f"max_length={max_length}: an integer from {least}{known} is needed")
    columns = (
        [[e.text for e in examples]] if text_to_text else [[e.parts[i] for e in examples] for i in range(parts)]
    )
    inputs = dict(tokenizer(*columns, truncation=True, max_length=max_length, return_attention_mask=True))
    targets = _targets(examples, tokenizer, target_limit) if text_to_text else [None] * len(examples)
    labels = [0.0 if isinstance(e.label, str) else e.label for e in examples]
    return [
        Encoded({key: values[i] for key, values in inputs.items()}, targets[i], labels[i], i)
        for i in range(len(examples))
    ]


def _targets(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, limit: int | None
) -> list[list[int]]:
    texts = [e.target for e in examples]
    whole = tokenizer(texts)["input_ids"]
    if limit is None or max(map(len, whole)) <= limit:
        return list(whole)
    cut = sum(len(tokens) > limit for tokens in whole)
    warnings.warn(
        f"{cut} of {len(whole)} targets are longer than max_target_length={limit} tokens, and cut",
        WtacrsWarning,
        stacklevel=2,
    )
    return list(tokenizer(texts, truncation=True, max_length=limit)["input_ids"])


def collate(
    batch: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase, *, regression: bool = False, ids: bool = False
) -> dict[str, Tensor]:
    """Pad a batch to its longest example, on the right.

    Returns:
        The tokenizer's features `[batch, length]` (int64) and `labels`: token ids `[batch, target length]` with
        `IGNORED_LABEL` at padding for text-to-text, else `[batch]`, int64 or for regression float32. With `ids` also
        `example_ids` `[batch]` (int64), which the hook of a converted model takes away before the model sees it.
    """
    # not by transformers' collators: they pad on the tokenizer's side, and where that is the left, as with many decoders,
    # models that count positions without the mask (GPT-2) would begin a text at another position in every batch
    tensors: dict[str, Tensor] = {}
    for key in batch[0].features:
        padding = tokenizer.pad_token_id if key == "input_ids" else 0
        tensors[key] = _pad([e.features[key] for e in batch], padding)
    targets = [e.target for e in batch if e.target is not None]
    if targets:
        tensors["labels"] = _pad(targets, IGNORED_LABEL)
    else:
        dtype = torch.float32 if regression else torch.int64
        tensors["labels"] = torch.tensor([e.label for e in batch], dtype=dtype)
    if ids:
        tensors[EXAMPLE_IDS] = torch.tensor([e.index for e in batch])
    return tensors


def counted(examples: Sequence[Encoded]) -> int:
    """What a mean loss is a mean over: tokens to be written, or examples to be classified."""
    return sum(1 if example.target is None else len(example.target) for example in examples)


def _pad(rows: Sequence[list[int]], value: int) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)
