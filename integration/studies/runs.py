"""Runs of a study: each in a folder of its own, continued where it stopped when the study is started again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wtacrs.integration.models.opening import Subject
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.integration.training.run import Observer, finetune, finished_result
from wtacrs.validation.records.training import TrainingResult


def planned_runs(folders: Sequence[Path], *, overwrite: bool) -> list[str]:
    """A line for every run: what lies in its folder, and what would be done."""

    def told(folder: Path) -> str:
        if overwrite or not (folder / "state.pt").exists():
            return "trained from the start"
        return "done, not trained again" if (folder / "result.json").exists() else "continued from its saved state"

    return [f"  {folder}: {told(folder)}" for folder in folders]


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

    A run that is over is not trained again; if it kept no weights, the model is not even opened.

    Raises:
        InputError: if the run in the folder had other settings, or on anything that cannot be loaded or trained.
    """
    config = config.but(out=folder, resume=not overwrite and (folder / "state.pt").exists())
    if config.resume and observer is None:
        found = finished_result(config, task, subject.name)
        if found is not None:
            return found
    model, tokenizer = subject.open(task, config.seed)
    return finetune(config, task, model, tokenizer, progress=progress, observer=observer)
