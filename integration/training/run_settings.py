"""What a run was started with: `settings.json`, by which its folder alone resumes, evaluates and predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.own_files import OwnFiles
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.validation.records.results import write_text

FILE = "settings.json"
"""Its name in the folder of a run."""


class RunAnswers(BaseModel):
    """What the answers of a run's model are.

    Attributes:
        labels: classes by index; None for numbers and free text.
        scale: range of numbers.
        free_text: whether answers are texts.
        length: tokens of the longest answer in training; None for a model that writes none.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    labels: tuple[str, ...] | None = None
    scale: tuple[float, float] = (0.0, 5.0)
    free_text: bool = False
    length: int | None = None


class RunSettings(BaseModel):
    """How a run was trained, on which task and model, and what its answers are; files by their absolute places.

    Attributes:
        config: fields of `FinetuneConfig`, without those of the folder.
        task: name of a task; None with own files.
        data: folder of a named task.
        files: own files.
        model: name or folder of the model that was trained.
        tokenizer: as in `Subject`, as the limits.
        answers: what the model answers.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    config: dict[str, Any]
    task: str | None = None
    data: Path | None = None
    files: OwnFiles | None = None
    model: str | None = None
    tokenizer: str | None = None
    train_limit: int | None = None
    dev_limit: int | None = None
    answers: RunAnswers = RunAnswers()

    @property
    def seed(self) -> int:
        """Seed of the run, and so of the examples that a limit keeps."""
        return int(self.config.get("seed", 0))

    @property
    def max_length(self) -> int:
        """Longest input, in tokens."""
        return int(self.config.get("max_length", 128))

    def options(self) -> dict[str, Any]:
        """The subject as options of the command line, by their names."""
        named = {name: getattr(self, name) for name in _NAMES}
        files = {} if self.files is None else vars(self.files)
        return {name: value for name, value in (named | files).items() if value is not None}

    def subject(self) -> Subject:
        """Task, files and limits, without a model."""
        task = self.files.name if self.files is not None else self.task or Subject.task
        return Subject(task, self.data, train_limit=self.train_limit, dev_limit=self.dev_limit, files=self.files)


_NAMES = ("task", "data", "model", "tokenizer", "train_limit", "dev_limit")


def save_settings(
    folder: Path, config: FinetuneConfig, subject: Subject, task: TaskData, *, answer_length: int | None
) -> None:
    """Write them, whole or not at all.

    Args:
        folder: of the run.
        config: how it is trained.
        subject: names of task and model.
        task: says what answers are.
        answer_length: tokens of the longest answer; None for a model that writes none.
    """
    named = {name: _absolute(getattr(subject, name)) for name in _NAMES}
    if subject.files is not None:
        named |= {"task": None, "files": {name: _absolute(value) for name, value in vars(subject.files).items()}}
    settings = RunSettings(
        config=config.model_dump(mode="json", exclude={"out", "resume"}),
        answers=RunAnswers(labels=task.labels, scale=task.scale, free_text=task.free_text, length=answer_length),
        **named,
    )
    write_text(folder / FILE, settings.model_dump_json(indent=2, exclude_none=True) + "\n")


def load_settings(folder: Path) -> RunSettings:
    """Read the settings of the run in a folder.

    Raises:
        InputError: if there are none, or something else.
    """
    found = _read(folder / FILE)
    if found is None:
        raise InputError(f"out={folder}: there is no {FILE}: give the options that the run was started with")
    return found


def find_settings(folder: Path) -> RunSettings | None:
    """Settings of a run, or of the run that a model folder lies in; None if there are none.

    Raises:
        InputError: if they cannot be read.
    """
    return _read(folder / FILE) or _read(folder.parent / FILE)


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


def _read(path: Path) -> RunSettings | None:
    if not path.is_file():
        return None
    try:
        return RunSettings.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{path}: not the settings of a run ({where}: {first['msg']})") from None


def _absolute(value: Any) -> Any:
    """Places on this machine from its root, so that a run goes on from another folder; all else as it is."""
    if isinstance(value, Path) or (isinstance(value, str) and "/" in value):
        return str(Path(value).absolute()) if Path(value).exists() else str(value)
    return value
