"""A fine-tuned model by its folder, and what it predicts for the rows of a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from wtacrs.integration.models.loading import is_text_to_text, load_model
from wtacrs.integration.tasks.base import Example, TaskData
from wtacrs.integration.training.evaluation import Answers, read_answer
from wtacrs.integration.training.run_settings import RunAnswers, RunSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prediction:
    """What a model says of one row.

    Attributes:
        prediction: name of a class, number or text; None for what is no answer of the task.
        probability: of the class, by the softmax of a head; None without one.
        answer: what a text-to-text model wrote, where that is to be read as a class or number.
    """

    prediction: str | float | None
    probability: float | None = None
    answer: str | None = None


def load_finetuned(
    folder: Path, told: RunSettings | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, TaskData]:
    """A model with its tokenizer and a task without examples that says what its answers are.

    Classes of a head are those of the model's config; those that a model writes are told by its run, and without one its
    answers are free text.

    Raises:
        InputError: if it cannot be loaded.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("is_encoder_decoder"):
        answers = RunAnswers(free_text=True) if told is None else told.answers
        task = _without_examples(answers.labels, answers.free_text, answers.scale)
    else:
        names = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
        regression = config.get("problem_type") == "regression" or len(names) == 1
        ordered = tuple(name for _, name in sorted(names.items(), key=lambda pair: int(pair[0])))
        task = _without_examples(None if regression else ordered, False, (0.0, 5.0))
    model, tokenizer = load_model(str(folder), task)
    return model, tokenizer, task


def _without_examples(labels: tuple[str, ...] | None, free_text: bool, scale: tuple[float, float]) -> TaskData:
    return TaskData("", (), (), labels, (), float("nan"), "", scale, free_text)


def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskData,
    inputs: Sequence[tuple[str, tuple[str, ...]]],
    *,
    max_length: int,
    answer_length: int,
    batch_size: int = 64,
) -> list[Prediction]:
    """Predictions in the order of the inputs.

    Args:
        model: as `load_finetuned` gives it, as the next two.
        tokenizer: of the model.
        task: says what answers are.
        inputs: what a text-to-text model reads, and the bare texts for a head.
        max_length: inputs are cut to so many tokens.
        answer_length: tokens of a written answer, at most.
        batch_size: inputs at a time.

    Raises:
        InputError: if `max_length` does not fit.
    """
    examples = [Example(text, "", 0, parts) for text, parts in inputs]
    answers = Answers(
        examples,
        tokenizer,
        text_to_text=is_text_to_text(model),
        max_length=max_length,
        answer_length=answer_length,
        batch_size=batch_size,
    )
    return [_prediction(answer, task) for answer in answers(model)]


def _prediction(answer: str | list[float], task: TaskData) -> Prediction:
    read = read_answer(answer, task)
    named = task.labels[read] if task.labels is not None and isinstance(read, int) else read
    if isinstance(answer, str):
        return Prediction(named, answer=None if task.free_text else answer)
    if task.labels is None or read is None:
        return Prediction(named)
    return Prediction(named, probability=float(torch.tensor(answer, dtype=torch.float64).softmax(-1).max()))
