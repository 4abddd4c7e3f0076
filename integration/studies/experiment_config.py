"""What files of experiments over seeds have in common: task and model, seeds, margins, training; how they are read."""

from __future__ import annotations

import dataclasses
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from wtacrs.estimators import InputError
from wtacrs.integration.layers.planned import check_choices, load_plan
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.own_files import OwnFiles
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.validation.dry_run import is_dry_run
from wtacrs.validation.seeds import ACCEPTED_SEEDS, is_seed

ConfigT = TypeVar("ConfigT", bound="ExperimentBase")


class ExperimentBase(BaseModel):
    """What experiments over seeds have in common, checked before anything is loaded."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    task: str = "docstrings"
    data: OwnFiles | None = None
    model: str | None = None
    tokenizer: str | None = None
    needs: dict[Literal["model", "tokenizer"], str] = Field({}, exclude=True)
    train_limit: int | None = Field(None, ge=1)
    dev_limit: int | None = Field(None, ge=1)
    held_out: int | None = Field(None, ge=1)
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=2)
    margin: float = Field(0.01, gt=0)
    level: float = Field(0.05, gt=0, lt=0.5)
    variance: Literal["own", "pooled"] = "own"
    average_last: int = Field(1, ge=1)
    deviation: float | None = Field(None, gt=0)
    loss_margin: float | None = Field(None, gt=0)
    training: dict[str, Any] = {}

    @field_validator("data", mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        known = [one.name for one in dataclasses.fields(OwnFiles)]
        strange = [key for key in value if key not in known] if isinstance(value, dict) else []
        if strange:
            raise ValueError(f"{strange[0]!r} is none of {', '.join(known)}")
        return value

    @model_validator(mode="after")
    def _one_task(self) -> ExperimentBase:
        if self.data is not None and "task" in self.model_fields_set:
            raise ValueError("task, [data]: one of them says what is trained on")
        if self.data is not None and self.held_out is not None:
            raise ValueError("held_out, [data]: own files have dev_share")
        if self.loss_margin is not None and not self.training.get("dev_loss"):
            raise ValueError("loss_margin needs dev_loss = true in [training]")
        return self

    @field_validator("seeds", mode="before")
    @classmethod
    def _usable(cls, value: Any) -> Any:
        for seed in value if isinstance(value, list | tuple) else ():
            if not is_seed(seed):
                raise ValueError(f"{seed!r} must be {ACCEPTED_SEEDS}")
        return value

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("must be distinct")
        return value

    def refuse_reserved(self, places: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse fields that the experiment sets itself, in [training] and in other places by their names.

        Raises:
            InputError: naming the place and the field.
        """
        for where, fields in {"training": self.training, **places}.items():
            reserved = [key for key in ("seed", "out", "resume", "keep_weights") if key in fields]
            if reserved:
                raise InputError(f"{where}.{reserved[0]} is set by the experiment itself")

    def refuse_missing(self, subject: Subject) -> None:
        """Refuse a subject without what the file says must be given.

        Raises:
            InputError: naming the option, and what it is.
        """
        needed = [f"--{option}: {what}" for option, what in self.needs.items() if getattr(subject, option) is None]
        if needed:
            raise InputError(f"experiment {self.name} needs {'; '.join(needed)}")

    def settings(self) -> Mapping[Any, FinetuneConfig]:
        """How the runs are trained, but for the seed.

        Raises:
            InputError: on unusable fields.
        """
        raise NotImplementedError


def read_config(path: Path, kinds: Mapping[str, type[ConfigT]]) -> ConfigT:
    """What a TOML file describes, as a kind of experiment.

    Args:
        path: of the file.
        kinds: by the table that only files of this kind have; the first one where a file has none of them.

    Raises:
        InputError: if the file is missing, is no TOML, or names something unusable.
    """
    try:
        content = _with_plans(tomllib.loads(path.read_text(encoding="utf-8")), path)
        kind = next((kind for table, kind in kinds.items() if table in content), next(iter(kinds.values())))
        found = kind(**content)
    except OSError as error:
        raise InputError(f"experiment={path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"experiment={path} is no TOML: {error}") from None
    except ValidationError as error:
        raise InputError(f"experiment={path}: {'; '.join(map(_told, error.errors()))}") from None
    try:
        found.settings()
        if found.data is not None:
            found.data.check()
    except InputError as error:
        raise InputError(f"experiment={path}: {error}") from None
    return found


def _with_plans(content: Any, file: Path, where: str = "") -> Any:
    """The content with plans in place of the names of their files, so that the design holds what is done.

    Raises:
        InputError: on a plan that is no text, no file or no plan.
    """
    if not isinstance(content, dict):
        return content
    found = {}
    for key, value in content.items():
        place = f"{where}.{key}" if where else key
        if key == "plan" and where and not isinstance(value, dict):
            found[key] = _choices_of_plan(value, file, place)
        else:
            found[key] = _with_plans(value, file, place)
    return found


def _choices_of_plan(value: Any, file: Path, place: str) -> dict[str, Any]:
    if not isinstance(value, str):
        raise InputError(
            f"experiment={file}: {place}={value!r} must be the name of a file that `wtacrs plan` wrote"
        )
    ways = list(dict.fromkeys((Path(value), file.parent / value)))
    path = next((way for way in ways if way.is_file()), None)
    if path is None:
        raise InputError(f"experiment={file}: {place}={value!r}: no such file as {' or '.join(map(str, ways))}")
    try:
        return load_plan(path).does.model_dump(mode="json")
    except InputError as error:
        raise InputError(f"experiment={file}: {place}={value!r}: {error}") from None


def planned_lines(settings: Mapping[Any, FinetuneConfig]) -> list[str]:
    """What the plans of an experiment do, a line for every setting that has one."""
    lines = []
    for label, config in settings.items():
        if config.plan is not None:
            counts = Counter(str(choice) for choice in config.plan.blocks.values())
            told = ", ".join(f"{count} × {choice}" for choice, count in counts.items())
            head = "" if config.plan.head is None else f"; the output layer is lean, {config.plan.head}"
            name = label if isinstance(label, str) else ", ".join(label)
            lines.append(f"{name}: {config.plan}, {len(config.plan.blocks)} blocks: {told}{head}")
    return lines


def check_subject(
    subject: Subject, task: TaskData, settings: Mapping[Any, FinetuneConfig], runs: Sequence[Path], seed: int
) -> None:
    """Open the model in a dry run, and where a plan must fit it, before the first run of several begins.

    Raises:
        InputError: if it cannot be opened, or a plan is for other blocks than its own.
    """
    plans = [config.plan for config in settings.values() if config.plan is not None]
    waiting = plans and not all((run / "result.json").exists() for run in runs)
    if is_dry_run() or waiting:
        model, _ = subject.open(task, seed)
        for plan in plans:
            check_choices(plan, model)


def _told(error: ErrorDetails) -> str:
    where = ".".join(map(str, error["loc"])) or "the file"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"


def subject_of(
    config: ExperimentBase, data: Path | None, model: str | None, tokenizer: str | None = None
) -> Subject:
    """Task and model that the experiment trains; a model and a tokenizer given here go before the file's."""
    if data is not None and config.data is not None:
        raise InputError(f"data={data}: the experiment has own files, {config.data.train}")
    return Subject(
        config.task if config.data is None else config.data.name,
        data,
        model or config.model,
        tokenizer or config.tokenizer,
        config.train_limit,
        config.dev_limit,
        config.data,
        config.held_out,
    )


def stamp_inputs(subject: Subject, task: TaskData) -> dict[str, str]:
    """What the stamp of a result says of task and model, folders of data left out."""
    return {key: value for key, value in subject.described.items() if key != "data"} | dict(task.given)


def dumped(config: ExperimentBase) -> dict[str, Any]:
    """The config as JSON, own files without where on a machine they lie."""
    if config.data is None:
        return config.model_dump(mode="json", exclude={"data"})
    return config.model_dump(mode="json", exclude={"task"}) | {"data": config.data.described}
