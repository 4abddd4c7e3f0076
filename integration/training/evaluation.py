"""What a model answers to examples, and its metrics: generated texts for text-to-text models, else the head's output."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wtacrs.estimators.core.errors import InputError, WtacrsWarning
from wtacrs.integration.parallel.fsdp import is_sharded
from wtacrs.integration.parallel.processes import Processes
from wtacrs.integration.tasks.base import Example, Label, TaskData
from wtacrs.integration.tasks.encoding import Encoded, collate, counted, encode
from wtacrs.integration.tasks.metrics import Prediction, parse_target, score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Answer = str | list[float]
"""A generated text, or the outputs of a head."""


class Answers:
    """Examples, tokenized once, that models answer. Several processes share the batches, and all get all answers.

    Args:
        examples: their targets and labels are not looked at.
        tokenizer: of the models.
        text_to_text: whether a model generates its answer, greedily, or has a classification head.
        max_length: inputs are cut to so many tokens.
        answer_length: tokens of an answer, at most.
        batch_size: examples at a time, sorted by length.

    Raises:
        InputError: as `encode`.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        *,
        text_to_text: bool,
        max_length: int,
        answer_length: int,
        batch_size: int = 64,
    ) -> None:
        self._tokenizer, self._text_to_text = tokenizer, text_to_text
        unanswered = [replace(example, target="") for example in examples]
        self._encoded = encode(unanswered, tokenizer, text_to_text=text_to_text, max_length=max_length)
        self._answer_length, self._batch_size = answer_length, batch_size

    def __call__(self, model: PreTrainedModel) -> list[Answer]:
        """Answers in the order of the examples; the model is put into eval mode and back into the mode it was in."""
        with _evaluating(model):
            return self._answers(model)

    def _answers(self, model: PreTrainedModel) -> list[Answer]:
        found: dict[int, Answer] = {}
        # a model in pieces must run in step: every process evaluates all of it
        processes = Processes() if is_sharded(model) else Processes.here()
        for indices in processes.share(list(self._batches())):
            batch = collate([self._encoded[i] for i in indices], self._tokenizer)
            del batch["labels"]
            batch = {key: value.to(model.device) for key, value in batch.items()}
            read = self._generate if self._text_to_text else self._classify
            for index, answer in zip(indices, read(model, batch), strict=True):
                found[index] = answer
        everything = {index: value for part in processes.gathered(found) for index, value in part.items()}
        return [everything[index] for index in range(len(self._encoded))]

    def _batches(self) -> Iterator[Sequence[int]]:
        order = sorted(range(len(self._encoded)), key=lambda i: len(self._encoded[i]))
        for start in range(0, len(order), self._batch_size):
            yield order[start : start + self._batch_size]

    def _generate(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> Sequence[Answer]:
        produced = model.generate(**batch, max_new_tokens=self._answer_length, num_beams=1, do_sample=False)
        return list(self._tokenizer.batch_decode(produced, skip_special_tokens=True))

    def _classify(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> Sequence[Answer]:
        return list(model(**batch).logits.float().tolist())


class WrittenLoss:
    """Mean loss per token of the targets of dev examples, as a model that writes is trained.

    Args:
        task: whose dev examples they are.
        tokenizer: of the models.
        max_length: inputs are cut to so many tokens.
        batch_size: examples at a time, sorted by length.
    """

    def __init__(
        self, task: TaskData, tokenizer: PreTrainedTokenizerBase, *, max_length: int, batch_size: int
    ) -> None:
        encoded = encode(
            task.dev, tokenizer, text_to_text=True, max_length=max_length, target_limit=task.target_limit
        )
        self._tokenizer = tokenizer
        ordered = sorted(encoded, key=len)
        self._batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]

    def __call__(self, model: PreTrainedModel) -> float:
        """The mean; the model is put into eval mode and back into the mode it was in."""
        processes = Processes() if is_sharded(model) else Processes.here()
        with _evaluating(model):
            mine = [self._sum(model, batch) for batch in processes.share(self._batches)]
        sums = [one for part in processes.gathered(mine) for one in part]
        return math.fsum(total for total, _ in sums) / sum(count for _, count in sums)

    def _sum(self, model: PreTrainedModel, examples: Sequence[Encoded]) -> tuple[float, int]:
        batch = collate(examples, self._tokenizer)
        loss = model(**{key: value.to(model.device) for key, value in batch.items()}).loss
        count = counted(examples)
        return float(loss) * count, count


def head_loss(outputs: Sequence[Sequence[float]], labels: Sequence[Label]) -> float:
    """Mean loss of the outputs of a head: cross-entropy of several, squared error of one."""
    found = torch.tensor(outputs, dtype=torch.float64)
    if found.shape[1] == 1:
        return float((found[:, 0] - torch.tensor(labels, dtype=torch.float64)).square().mean())
    return float(nn.functional.cross_entropy(found, torch.tensor(labels, dtype=torch.int64)))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


class Evaluator:
    """The dev set of a task, tokenized once. Several processes share its batches, and all get the same metrics.

    Args:
        task: gives examples, labels and metrics.
        tokenizer: of the model to be evaluated.
        text_to_text: whether the model generates its answer, greedily, or has a classification head.
        max_length: inputs are cut to so many tokens.
        batch_size: examples at a time, sorted by length.
        with_loss: evaluate the mean loss too, as "loss".

    Raises:
        InputError: if the tokenizer cannot spell the answers, two classes differ in case or spaces alone where a model
            writes them, or as `encode`.
    """

    def __init__(
        self,
        task: TaskData,
        tokenizer: PreTrainedTokenizerBase,
        *,
        text_to_text: bool,
        max_length: int,
        batch_size: int = 64,
        with_loss: bool = False,
    ) -> None:
        self._task = task
        self._with_loss = with_loss
        self._written = (
            WrittenLoss(task, tokenizer, max_length=max_length, batch_size=batch_size)
            if with_loss and text_to_text
            else None
        )
        self._answers = Answers(
            task.dev,
            tokenizer,
            text_to_text=text_to_text,
            max_length=max_length,
            answer_length=answer_length(task, tokenizer) if text_to_text else 0,
            batch_size=batch_size,
        )

    def __call__(self, model: PreTrainedModel) -> dict[str, float]:
        """Metrics of the model, which is put into eval mode and afterwards back into the mode it was in."""
        answers = self._answers(model)
        predictions = [read_answer(answer, self._task) for answer in answers]
        truth = [e.label for e in self._task.dev]
        found = score(self._task.metrics, predictions, truth, scale=self._task.scale)
        if self._written is not None:
            return found | {"loss": self._written(model)}
        if self._with_loss:
            return found | {"loss": head_loss([a for a in answers if not isinstance(a, str)], truth)}
        return found


def read_answer(answer: Answer, task: TaskData) -> Prediction:
    """What an answer says: the index of a class, a number or a text; None for what is no answer of the task.

    Letters count, case and spaces do not, where a model writes the name of a class: a tokenizer may have one case only.
    """
    if isinstance(answer, str):
        if task.free_text:
            return answer
        labels = None if task.labels is None else tuple(map(_letters, task.labels))
        return parse_target(_letters(answer), labels, task.scale)
    logits = torch.tensor(answer)
    if not logits.isfinite().all():
        return None
    return answer[0] if task.labels is None else int(logits.argmax())


def answer_length(task: TaskData, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the longest answer of a task, after checking that the tokenizer can spell them all.

    Free text that it cannot spell is counted in a warning.

    Raises:
        InputError: if it cannot spell a class or a number, or classes differ in case and spaces alone.
    """
    _refuse_alike(task)
    answers = sorted({e.target for e in (*task.train, *task.dev)})
    tokens = tokenizer(answers)["input_ids"]
    decoded = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    pairs = list(zip(answers, decoded, strict=True))
    if task.free_text:
        _warn_of_misspelled(pairs, tokenizer)
        longest = max(map(len, tokens))
        return longest if task.target_limit is None else min(longest, task.target_limit)
    for answer, spelled in pairs:
        if _letters(spelled) != _letters(answer):
            raise InputError(
                f"tokenizer {tokenizer.name_or_path!r} cannot spell the answer {answer!r} of task "
                f"{task.name!r}: it becomes {spelled!r}"
            )
    return max(map(len, tokens))


def _letters(text: str) -> str:
    return "".join(text.split()).casefold()


def _refuse_alike(task: TaskData) -> None:
    seen: dict[str, str] = {}
    for label in task.labels or ():
        other = seen.setdefault(_letters(label), label)
        if other != label:
            raise InputError(
                f"task {task.name!r}: the classes {other!r} and {label!r} differ in case and spaces alone, which a model "
                "that writes its answer cannot tell apart; name them otherwise, or take a model with a head"
            )


def _warn_of_misspelled(pairs: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerBase) -> None:
    wrong = [(answer, spelled) for answer, spelled in pairs if spelled.split() != answer.split()]
    if wrong:
        answer, spelled = (text if len(text) <= 60 else text[:57] + "…" for text in wrong[0])
        warnings.warn(
            f"tokenizer {tokenizer.name_or_path!r} cannot spell {len(wrong)} of {len(pairs)} different targets, which no "
            f"answer can match: {answer!r} becomes {spelled!r}",
            WtacrsWarning,
            stacklevel=2,
        )
