"""Metrics of a fine-tuned model that lies in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wtacrs.estimators import InputError
from wtacrs.integration.models.loading import is_text_to_text, load_model, without_place
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.training.evaluation import Evaluator
from wtacrs.integration.training.predict import load_finetuned
from wtacrs.integration.training.run_settings import find_settings, model_folder
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.evaluation import Evaluation


def evaluate_study(
    folder: Path,
    subject: Subject | None,
    *,
    changed: Mapping[str, Any] | None = None,
    max_length: int | None = None,
    batch_size: int = 64,
    device: str = "cpu",
) -> Evaluation:
    """Evaluate the model of a run, or of a folder, on the dev examples of a task.

    Args:
        folder: of a run, whose `best/` is taken, or of a model.
        subject: task or own files; None for what the run was trained on.
        changed: what replaces names of the run's subject, where `subject` is None: `data`, `dev_limit`, and fields of
            `OwnFiles`.
        max_length: longest input, in tokens; None for that of the run, or 128.
        batch_size: examples at a time.
        device: where the model runs.

    Raises:
        InputError: if something cannot be loaded, or the model has other classes than the task.
    """
    place, told = model_folder(folder), find_settings(folder)
    if subject is None:
        if told is None:
            raise InputError(f"{folder} does not say what it was trained on: --task, or --train with --dev, does")
        subject = _with_changed(told.subject(), changed or {}, folder)
    task = subject.load(told.seed if told is not None else 0)
    known = load_finetuned(place, told)[2]
    _refuse_other_classes(known, task, place)
    model, tokenizer = load_model(str(place), task)
    evaluator = Evaluator(
        task,
        tokenizer,
        text_to_text=is_text_to_text(model),
        max_length=max_length or (128 if told is None else told.max_length),
        batch_size=batch_size,
    )
    metrics = evaluator(model.to(device))
    return Evaluation(
        stamp=stamp(seed=None, device=device, inputs=dict(task.given)),
        task=task.name,
        model=without_place(str(place)),
        dev_size=len(task.dev),
        majority=task.majority,
        metrics=metrics,
    )


def _with_changed(subject: Subject, changed: Mapping[str, Any], folder: Path) -> Subject:
    own = {name: value for name, value in changed.items() if name not in ("data", "dev_limit")}
    named = {name: value for name, value in changed.items() if name not in own}
    if "data" in named and subject.files is not None:
        raise InputError(f"--data: the run in {folder} was trained on own files; --dev names others")
    if not own:
        return replace(subject, **named)
    if subject.files is None:
        first = next(iter(own)).replace("_", "-")
        raise InputError(
            f"--{first}: the run in {folder} was trained on task {subject.task!r}; --train names own files"
        )
    if "dev" in own:
        own = {"dev_share": None, **own}
    if {"label", "target"} & set(own):
        own = {"label": None, "target": None, "label_kind": None, "max_target_length": None, **own}
    return replace(subject, files=replace(subject.files, **own), dev_limit=named.get("dev_limit"))


def _refuse_other_classes(known: TaskData, task: TaskData, place: Path) -> None:
    if (known.labels, known.free_text) != (task.labels, task.free_text):
        raise InputError(f"the model in {place} answers {_told(known)}; {task.name} has {_told(task)}")


def _told(task: TaskData) -> str:
    if task.free_text:
        return "texts"
    return "numbers" if task.labels is None else f"the classes {', '.join(map(repr, task.labels))}"
