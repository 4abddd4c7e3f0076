"""Runs of a study: each in a folder of its own, continued where it stopped when the study is started again."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from wtacrs.estimators import InputError
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.integration.training.run import Observer, finetune, finished_result
from wtacrs.validation.records.training import TrainingResult

KeyT = TypeVar("KeyT", bound=Hashable)


def planned_runs(folders: Sequence[Path], *, runs_of: Sequence[Path] = (), overwrite: bool) -> list[str]:
    """A line for every run: what lies in its folder, and what would be done; which studies runs are copied from."""

    def told(folder: Path) -> str:
        if overwrite or not (folder / "state.pt").exists():
            return "trained from the start"
        return "done, not trained again" if (folder / "result.json").exists() else "continued from its saved state"

    copied = [] if overwrite else [f"copies finished runs of the same settings from {other}" for other in runs_of]
    return [f"  {folder}: {told(folder)}" for folder in folders] + copied


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


def train_over_seeds(
    settings: Mapping[KeyT, FinetuneConfig],
    folders: Mapping[KeyT, Path],
    seeds: Sequence[int],
    subject: Subject,
    task: TaskData,
    *,
    with_weights: Collection[tuple[KeyT, int]] = (),
    runs_of: Sequence[Path] = (),
    overwrite: bool = False,
    progress: bool = False,
) -> dict[tuple[KeyT, int], TrainingResult]:
    """Train with all settings from the same seeds; finished runs keep no weights unless it is said.

    Seed by seed, so that an interrupted study has compared all settings on the seeds that it has.

    Args:
        settings: how the runs are trained, but for the seed.
        folders: of the runs of every setting; `FOLDER/seed-N` are the runs.
        seeds: of the runs.
        subject: task and model; every seed holds out examples of its own, if it holds out any.
        task: what `subject` loads otherwise.
        with_weights: settings and seeds whose runs keep their weights.
        runs_of: folders of other studies, whose finished runs of the same settings are copied in place of training.
        overwrite: start anew whatever the folders hold.
        progress: show progress lines on stderr.

    Raises:
        InputError: as `train_in`.
    """
    found: dict[tuple[KeyT, int], TrainingResult] = {}
    for seed in seeds:
        examples = subject.load(seed) if subject.held_out is not None else task
        for key, config in settings.items():
            folder = folders[key] / f"seed-{seed}"
            chosen = config.but(seed=seed, keep_weights=(key, seed) in with_weights)
            if not overwrite:
                take_over(folder, chosen, subject, examples, runs_of)
            found[key, seed] = train_in(
                folder,
                chosen,
                subject,
                examples,
                overwrite=overwrite,
                progress=progress,
            )
    return found


def take_over(
    folder: Path, config: FinetuneConfig, subject: Subject, task: TaskData, runs_of: Sequence[Path]
) -> Path | None:
    """Copy the finished run of the same settings, examples and model that lies in another study's folder.

    Args:
        folder: where the run is to be.
        config: of the run, its seed included.
        subject: what it trains.
        task: its examples.
        runs_of: folders of studies; `LABEL/seed-N` are their runs.

    Returns:
        The folder that was copied; None if there is no such run, if the run is to keep its weights, or if something lies
        in its folder.
    """
    if folder.exists() and any(folder.iterdir()):
        return None
    for study in runs_of:
        for other in sorted(study.glob(f"*/seed-{config.seed}")):
            if other.resolve() != folder.resolve() and _is_same_run(other, config, subject, task):
                partial = folder.with_name(f"{folder.name}.part")
                shutil.rmtree(partial, ignore_errors=True)
                shutil.copytree(other, partial)
                if folder.exists():
                    folder.rmdir()
                partial.rename(folder)
                return other
    return None


def _is_same_run(folder: Path, config: FinetuneConfig, subject: Subject, task: TaskData) -> bool:
    if not (folder / "state.pt").exists():
        return False
    try:
        return finished_result(config.but(out=folder), task, subject.name) is not None
    except InputError:
        return False
