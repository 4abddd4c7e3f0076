"""What a run was trained on: `task.json` beside its weights, by which its folder alone says how to use it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.own_files import OwnFiles
from wtacrs.validation.records.results import write_text

FILE = "task.json"
"""Its name in the folder of a run."""


class TaskFile(BaseModel):
    """Task and files as they were named, from the folder the run was started in, and what answers are.

    Attributes:
        task: name of the task.
        data: folder of a named task.
        files: own files.
        train_limit: as in `Subject`, as `dev_limit`.
        seed: of the subsets that a limit keeps.
        labels: classes by index; None for numbers and free text.
        scale: range of numbers.
        free_text: whether answers are texts.
        max_length: longest input, in tokens.
        answer_length: tokens of the longest answer; None for a model that writes none.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    task: str
    data: Path | None = None
    files: OwnFiles | None = None
    train_limit: int | None = None
    dev_limit: int | None = None
    seed: int = 0
    labels: tuple[str, ...] | None = None
    scale: tuple[float, float] = (0.0, 5.0)
    free_text: bool = False
    max_length: int = 128
    answer_length: int | None = None

    def subject(self) -> Subject:
        """Task, files and limits, without a model."""
        return Subject(
            self.task,
            self.data,
            None,
            None,
            train_limit=self.train_limit,
            dev_limit=self.dev_limit,
            files=self.files,
        )


def write_task_file(
    folder: Path, subject: Subject, task: TaskData, *, seed: int, max_length: int, answer_length: int | None
) -> None:
    """Write `task.json`, whole or not at all."""
    names = ("task", "data", "files", "train_limit", "dev_limit")
    told: dict[str, Any] = {name: getattr(subject, name) for name in names}
    if subject.files is not None:
        told["files"] = dataclasses.asdict(subject.files)
    told |= {"seed": seed, "labels": task.labels, "scale": task.scale, "free_text": task.free_text}
    told |= {"max_length": max_length, "answer_length": answer_length}
    text = json.dumps(told, indent=2, default=str)
    write_text(folder / FILE, text + "\n")


def read_task_file(folder: Path) -> TaskFile | None:
    """What a run, or the run that a model folder lies in, was trained on; None if there is no such file.

    Raises:
        InputError: if it cannot be read.
    """
    for place in (folder / FILE, folder.parent / FILE):
        if place.is_file():
            try:
                return TaskFile.model_validate_json(place.read_bytes())
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"])) or "the file"
                raise InputError(
                    f"{place} does not say what a run was trained on: {where}: {first['msg']}"
                ) from None
    return None


def model_folder(folder: Path) -> Path:
    """The model of a run, `best/`, or the folder itself if it is a model's.

    Raises:
        InputError: if it is neither.
    """
    for place in (folder / "best", folder):
        if (place / "config.json").is_file():
            return place
    raise InputError(
        f"{folder} holds no model; accepted: the folder of a run of `wtacrs finetune`, or one with config.json"
    )
