"""Runs of a study: each in a folder of its own, gone on with where it stopped when the study is started again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wtacrs.integration.models.loading import without_place
from wtacrs.integration.studies.commands import check_model, open_model
from wtacrs.integration.tasks.tasks import TaskData, load_task
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.integration.training.run import Observer, finetune
from wtacrs.validation.records.training import TrainingResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Subject:
    """What a study trains: names of task, model and tokenizer as the command line takes them."""

    task: str = "docstrings"
    data: Path | None = None
    model: str | None = None
    tokenizer: str | None = None
    train_limit: int | None = None
    dev_limit: int | None = None

    def load(self) -> TaskData:
        """The task.

        Raises:
            InputError: if it cannot be loaded, or the model's name is unusable.
        """
        check_model(self.model, self.tokenizer)
        return load_task(self.task, data=self.data, train_limit=self.train_limit, dev_limit=self.dev_limit)

    def open(self, task: TaskData, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """A fresh model with its tokenizer; the seed decides new weights.

        Raises:
            InputError: if it cannot be loaded.
        """
        return open_model(self.model, self.tokenizer, task, seed)

    @property
    def described(self) -> dict[str, str]:
        """What a stamp says of it."""
        return {key: without_place(str(value)) for key, value in asdict(self).items() if value is not None}


def train_in(
    folder: Path,
    config: FinetuneConfig,
    subject: Subject,
    task: TaskData,
    *,
    overwrite: bool = False,
    observer: Observer | None = None,
    progress: bool = False,
) -> TrainingResult:
    """One run in its folder, from the start or from the state that lies there.

    A run that is over already is not trained again.

    Raises:
        InputError: if the run in the folder had other settings, or on anything that cannot be loaded or trained.
    """
    goes_on = not overwrite and (folder / "state.pt").exists()
    model, tokenizer = subject.open(task, config.seed)
    return finetune(
        config.but(out=folder, resume=goes_on), task, model, tokenizer, progress=progress, observer=observer
    )
