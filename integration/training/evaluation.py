"""Evaluation of a model on examples: generated answers for text-to-text models, else the head's output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.parallel.fsdp import is_sharded
from wtacrs.integration.parallel.processes import Processes
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.encoding import collate, encode
from wtacrs.integration.tasks.metrics import Prediction, parse_target, score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Evaluator:
    """The dev set of a task, tokenized once. Several processes share its batches, and all get the same metrics.

    Args:
        task: gives examples, labels and metrics.
        tokenizer: of the model to be evaluated.
        text_to_text: whether the model generates its answer, greedily, or has a classification head.
        max_length: inputs are cut to so many tokens.
        batch_size: examples at a time, sorted by length.
    """

    def __init__(
        self,
        task: TaskData,
        tokenizer: PreTrainedTokenizerBase,
        *,
        text_to_text: bool,
        max_length: int,
        batch_size: int = 64,
    ) -> None:
        self._task = task
        self._tokenizer = tokenizer
        self._encoded = encode(task.dev, tokenizer, text_to_text=text_to_text, max_length=max_length)
        self._batch_size = batch_size
        self._answer_length = self._longest_answer() if text_to_text else 0

    def __call__(self, model: PreTrainedModel) -> dict[str, float]:
        """Metrics of the model, which is put into eval mode and afterwards back into the mode it was in."""
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                predictions = self._predictions(model)
        finally:
            model.train(was_training)
        return score(self._task.metrics, predictions, [e.label for e in self._task.dev])

    def _longest_answer(self) -> int:
        """Tokens of the longest answer, after checking that the tokenizer can spell them all."""
        answers = sorted({e.target for e in (*self._task.train, *self._task.dev)})
        tokens = self._tokenizer(answers)["input_ids"]
        decoded = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        for answer, spelled in zip(answers, decoded, strict=True):
            if "".join(spelled.split()).casefold() != answer.casefold():
                raise InputError(
                    f"tokenizer {self._tokenizer.name_or_path!r} cannot spell the answer {answer!r} of task "
                    f"{self._task.name!r}: it becomes {spelled!r}"
                )
        return max(map(len, tokens))

    def _predictions(self, model: PreTrainedModel) -> list[Prediction]:
        found: dict[int, Prediction] = {}
        # a model in pieces must run in step: every process evaluates all of it
        processes = Processes() if is_sharded(model) else Processes.here()
        for indices in processes.share(list(self._batches())):
            batch = collate([self._encoded[i] for i in indices], self._tokenizer)
            labels = batch.pop("labels")
            batch = {key: value.to(model.device) for key, value in batch.items()}
            read = self._generate if labels.ndim == 2 else self._classify
            for index, prediction in zip(indices, read(model, batch), strict=True):
                found[index] = prediction
        everything = {index: value for part in processes.gathered(found) for index, value in part.items()}
        return [everything[index] for index in range(len(self._encoded))]

    def _batches(self) -> Iterator[Sequence[int]]:
        order = sorted(range(len(self._encoded)), key=lambda i: len(self._encoded[i]))
        for start in range(0, len(order), self._batch_size):
            yield order[start : start + self._batch_size]

    def _generate(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> list[Prediction]:
        produced = model.generate(**batch, max_new_tokens=self._answer_length, num_beams=1, do_sample=False)
        texts = self._tokenizer.batch_decode(produced, skip_special_tokens=True)
        # case aside: a tokenizer may have only one
        labels = None if self._task.labels is None else tuple(label.casefold() for label in self._task.labels)
        return [parse_target("".join(text.split()).casefold(), labels) for text in texts]

    def _classify(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> list[Prediction]:
        logits = model(**batch).logits.float()
        chosen = logits.squeeze(-1) if self._task.labels is None else logits.argmax(-1)
        readable = logits.isfinite().all(-1).tolist()
        return [value if fine else None for value, fine in zip(chosen.tolist(), readable, strict=True)]
