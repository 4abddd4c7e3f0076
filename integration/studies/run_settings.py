"""What a run was started with, in its folder, so that the folder alone is enough to go on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from wtacrs.estimators import InputError
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.validation.records.results import write_text

FILE = "settings.json"


class RunSettings(NamedTuple):
    """Fields of `FinetuneConfig`, and options that name task and model."""

    config: dict[str, Any]
    subject: dict[str, Any]


def save_settings(folder: Path, config: FinetuneConfig, subject: Subject) -> None:
    """Write them whole or not at all; places on this machine become absolute paths."""
    files = {} if subject.files is None else asdict(subject.files)
    names = ("task", "data", "model", "tokenizer", "train_limit", "dev_limit")
    named = {name: getattr(subject, name) for name in names if subject.files is None or name != "task"}
    given = {name: _stored(value) for name, value in (named | files).items() if value is not None}
    told = {"config": config.model_dump(mode="json", exclude={"out", "resume"}), "subject": given}
    write_text(folder / FILE, json.dumps(told, indent=2) + "\n")


def load_settings(folder: Path) -> RunSettings:
    """Read what `save_settings` wrote.

    Raises:
        InputError: if there is none, or something else.
    """
    path = folder / FILE
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return RunSettings(dict(told["config"]), dict(told["subject"]))
    except FileNotFoundError:
        raise InputError(
            f"out={folder}: there is no {FILE}: give the options that the run was started with"
        ) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not the settings of a run ({' '.join(str(error).split())})") from None


def _stored(value: Any) -> Any:
    if isinstance(value, Path) or (isinstance(value, str) and "/" in value):
        return str(Path(value).absolute()) if Path(value).exists() else str(value)
    return value
