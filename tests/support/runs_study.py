"""The small task as the subject of a study."""

from __future__ import annotations

from dataclasses import dataclass

from support.runs import TASK, tiny
from wtacrs.integration.models.loading import task_tokenizer
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.tasks.base import TaskData


@dataclass(frozen=True)
class Colours(Subject):
    """The small task and T5 of the tests of training."""

    def load(self, seed: int = 0, *, needs_dev: bool = True) -> TaskData:
        return TASK

    def open(self, task: TaskData, seed: int):
        tokenizer = task_tokenizer(TASK, 300)
        return tiny(tokenizer, dropout=0.1), tokenizer
