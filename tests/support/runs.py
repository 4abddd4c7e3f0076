"""Small tasks, models and settings of the tests of training, and what compares two runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerBase,
    T5ForConditionalGeneration,
)

from wtacrs.integration.models.loading import small_t5
from wtacrs.integration.tasks.base import Example, TaskData
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.integration.training.run import finetune
from wtacrs.validation.records.training import TrainingPoint, TrainingResult

COLOURS, SHAPES = ("red", "green", "blue", "grey"), ("ball", "cube", "ring", "star", "cone", "disk", "tile", "rod")


def colour_task() -> TaskData:
    """32 sentences; the answer is warm or cold by the colour."""
    labels = ("warm", "cold")
    examples = []
    for i, colour in enumerate(COLOURS):
        for shape in SHAPES:
            text = f"the {colour} {shape} lies on the table" + " and rolls" * (len(shape) % 3)
            examples.append(Example(f"colour: {text}", labels[i % 2], i % 2, (text,)))
    return TaskData("colours", tuple(examples), tuple(examples), labels, ("accuracy",), 0.5, "made up")


TASK = colour_task()


def number_task() -> TaskData:
    """Numbers that the colour decides."""
    shades = [float(COLOURS.index(example.parts[0].split()[1])) for example in TASK.train]
    examples = tuple(
        replace(e, target=f"{shade:.1f}", label=shade) for e, shade in zip(TASK.train, shades, strict=True)
    )
    return TaskData("numbers", examples, examples, None, ("pearson", "spearman"), 0.0, "made up")


NUMBERS = number_task()


CONFIG = FinetuneConfig(steps=60, batch_size=16, lr=3e-3, max_length=24, eval_every=20)


def tiny(tokenizer: PreTrainedTokenizerBase, dropout: float = 0.0) -> T5ForConditionalGeneration:
    return small_t5(tokenizer, d_model=32, layers=1, heads=2, d_ff=64, dropout=dropout)


def bert(tokenizer: PreTrainedTokenizerBase, outputs: int) -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=outputs,
        problem_type="regression" if outputs == 1 else "single_label_classification",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertForSequenceClassification(config)


def without_times(result: TrainingResult) -> dict[str, Any]:
    dumped = result.model_dump(mode="json")
    for point in dumped["history"]:
        point["seconds"] = None
    return dumped


def same_weights(one: nn.Module, two: nn.Module) -> bool:
    theirs = two.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


class Interrupted(Exception):
    """What stops a run in a test."""


def interrupt_at(step: int) -> Callable[[TrainingPoint], None]:
    def stop(point: TrainingPoint) -> None:
        if point.step == step:
            raise Interrupted

    return stop


def check_resuming(
    config: FinetuneConfig,
    model: Callable[[], T5ForConditionalGeneration],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    stop: int,
) -> TrainingResult:
    whole, stopped, resumed = model(), model(), model()
    expected = finetune(config.but(out=folder / "whole"), TASK, whole, tokenizer)
    with pytest.raises(Interrupted):
        finetune(config.but(out=folder / "part"), TASK, stopped, tokenizer, on_point=interrupt_at(stop))
    torch.manual_seed(99)  # another process would have another state
    result = finetune(config.but(out=folder / "part", resume=True), TASK, resumed, tokenizer)
    assert without_times(result) == without_times(expected)
    assert same_weights(whole, resumed)
    for name in ("best", "last"):
        one, two = (T5ForConditionalGeneration.from_pretrained(folder / run / name) for run in ("whole", "part"))
        assert same_weights(one, two)
    return result
