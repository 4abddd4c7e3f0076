"""An experiment as a file: one TOML in, every run in a folder of its own, one result JSON out.

    name = "t5-docstrings"          # model and task as on the command line; data comes from --data
    task = "docstrings"
    seeds = [0, 1, 2]
    margin = 0.01                   # of the metric: a smaller difference is of no consequence
    variance = "pooled"             # of differences, from all methods together; default "own": from each alone

    needs = { model = "a MiniLM" }  # what must be given by --model or --tokenizer, and what it is

    [training]                      # fields of `FinetuneConfig`
    steps = 900
    lr = 1e-3

    [methods]                       # label = spec, or fields of its own; exact training is always run
    "WTA-CRS 0.3" = 'wta_crs(budget=0.3)'
    "LoRA" = { lora_rank = 8, lr = 1e-3 }
    "LoRA, CRS 0.3" = { lora_rank = 8, lr = 1e-3, estimator = "crs(budget=0.3)" }
    "ours" = 'code/mine.py:Mine(budget=0.3)'    # a path from the current folder

Own files stand in a table in place of `task`; its keys are the fields of `OwnFiles`, paths from the current folder:

    [data]
    train = "reviews-train.csv"
    dev = "reviews-dev.csv"
    text = "review"
    label = "stars"

The same command continues an interrupted experiment in its folder. Finished runs keep no weights.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wtacrs.estimators import InputError
from wtacrs.figures.plots import experiment as figure
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.studies.output import draw_or_remove
from wtacrs.integration.studies.runs import planned_runs, train_in
from wtacrs.integration.tasks.own_files import OwnFiles
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.validation.dry_run import begin_work, is_dry_run
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.experiment import Equivalence, ExperimentResult, ExperimentRow, ExperimentRun
from wtacrs.validation.records.results import write_result
from wtacrs.validation.records.training import TrainingResult
from wtacrs.validation.seeds import ACCEPTED_SEEDS, is_seed
from wtacrs.validation.statistics.equivalence import (
    adjusted,
    nothing_learned,
    paired_equivalence,
    pooled_std,
    seeds_needed,
    without_verdict,
)

EXACT = "exact"


class ExperimentConfig(BaseModel):
    """What the file says, checked before anything is loaded."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    task: str = "docstrings"
    data: OwnFiles | None = None
    model: str | None = None
    tokenizer: str | None = None
    needs: dict[Literal["model", "tokenizer"], str] = Field({}, exclude=True)
    train_limit: int | None = Field(None, ge=1)
    dev_limit: int | None = Field(None, ge=1)
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=2)
    margin: float = Field(0.01, gt=0)
    level: float = Field(0.05, gt=0, lt=0.5)
    variance: Literal["own", "pooled"] = "own"
    training: dict[str, Any] = {}
    methods: dict[str, dict[str, Any]] = Field(min_length=1)

    @field_validator("data", mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        known = [one.name for one in dataclasses.fields(OwnFiles)]
        strange = [key for key in value if key not in known] if isinstance(value, dict) else []
        if strange:
            raise ValueError(f"{strange[0]!r} is none of {', '.join(known)}")
        return value

    @model_validator(mode="after")
    def _one_task(self) -> ExperimentConfig:
        if self.data is not None and "task" in self.model_fields_set:
            raise ValueError("task, [data]: one of them says what is trained on")
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

    @field_validator("methods", mode="before")
    @classmethod
    def _specs(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {label: {"estimator": spec} if isinstance(spec, str) else spec for label, spec in value.items()}

    @field_validator("methods")
    @classmethod
    def _not_exact(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if EXACT in value:
            raise ValueError(f"{EXACT!r} is always run: leave it out")
        return value

    def settings(self) -> dict[str, FinetuneConfig]:
        """How the runs of every label are trained, exact first, but for the seed.

        Raises:
            InputError: on unusable fields, and on two labels that would be one folder.
        """
        for where, fields in {"training": self.training, **self.methods}.items():
            reserved = [key for key in ("seed", "out", "resume", "keep_weights") if key in fields]
            if reserved:
                raise InputError(f"{where}.{reserved[0]} is set by the experiment itself")
        if "estimator" in self.training:
            raise InputError("training.estimator is set by the methods")
        folders: dict[str, str] = {}
        for label in (EXACT, *self.methods):
            other = folders.setdefault(folder_of(label), label)
            if other != label:
                raise InputError(f"methods {other!r} and {label!r} would share a folder; name one otherwise")
        return {
            label: FinetuneConfig(**self.training | fields)
            for label, fields in {EXACT: {}, **self.methods}.items()
        }


def read_experiment(path: Path) -> ExperimentConfig:
    """The experiment that a TOML file describes.

    Raises:
        InputError: if the file is missing, is no TOML, or names something unusable.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        found = ExperimentConfig(**content)
    except OSError as error:
        raise InputError(f"experiment={path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"experiment={path} is no TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"experiment={path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
    try:
        found.settings()
        if found.data is not None:
            found.data.check()
    except InputError as error:
        raise InputError(f"experiment={path}: {error}") from None
    return found


def run_experiment(
    config: ExperimentConfig,
    out: Path,
    *,
    data: Path | None = None,
    model: str | None = None,
    tokenizer: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> ExperimentResult:
    """Train exactly and with every estimator from the same seeds; writes `experiment.json` and `experiment.png`.

    Args:
        config: the experiment.
        out: its folder; `LABEL/seed-N` are the runs.
        data: folder of GLUE files, where the task is one of them.
        model: overrides the file's model: a local folder, say.
        tokenizer: likewise, of a small new model.
        overwrite: start anew whatever the folder holds.
        progress: show progress lines on stderr.

    Raises:
        InputError: as `finetune`, and if a run in the folder had other settings.
    """
    subject = subject_of(config, data, model, tokenizer)
    for option, what in config.needs.items():
        if getattr(subject, option) is None:
            raise InputError(f"experiment {config.name} needs --{option}: {what}")
    task = subject.load()
    folders = [out / folder_of(label) / f"seed-{seed}" for label in config.settings() for seed in config.seeds]
    if is_dry_run():
        subject.open(task, config.seeds[0])
    begin_work(
        f"{config.name}: {subject.name} on {task.name}, {len(task.train):,} examples, {len(folders)} runs: "
        f"{len(config.settings())} methods × {len(config.seeds)} seeds",
        *planned_runs(folders, overwrite=overwrite),
        f"writes {out / 'experiment.json'}",
    )
    runs: list[ExperimentRun] = []
    for label, settings in config.settings().items():
        for seed in config.seeds:
            folder = out / folder_of(label) / f"seed-{seed}"
            result = train_in(
                folder,
                settings.but(seed=seed, keep_weights=False),
                subject,
                task,
                overwrite=overwrite,
                progress=progress,
            )
            runs.append(ExperimentRun(label=label, seed=seed, result=result))
    first = runs[0].result
    described = {key: value for key, value in subject.described.items() if key != "data"} | dict(task.given)
    found = ExperimentResult(
        stamp=stamp(seed=None, device=first.stamp.device, inputs=described),
        config=_dumped(config),
        metric=first.metric,
        majority=first.majority,
        dev_size=first.dev_size,
        runs=runs,
        rows=experiment_rows(runs, margin=config.margin, level=config.level, pooled=config.variance == "pooled"),
    )
    write_result(out / "experiment.json", found)
    draw_or_remove(lambda path: figure.draw(found, path), out / "experiment.png")
    return found


def subject_of(
    config: ExperimentConfig, data: Path | None, model: str | None, tokenizer: str | None = None
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
    )


def _dumped(config: ExperimentConfig) -> dict[str, Any]:
    """The config as JSON, own files without where on a machine they lie."""
    if config.data is None:
        return config.model_dump(mode="json", exclude={"data"})
    return config.model_dump(mode="json", exclude={"task"}) | {"data": config.data.described}


def experiment_rows(
    runs: Sequence[ExperimentRun], *, margin: float, level: float, pooled: bool = False
) -> list[ExperimentRow]:
    """One row per label, exact first; equivalence to exact by Holm over the labels.

    The variance of a difference is estimated from all labels together if it is pooled, else from each alone. There is no
    verdict where exact training is not clearly better than the most frequent class.
    """
    by_label: dict[str, list[TrainingResult]] = {}
    for run in runs:
        by_label.setdefault(run.label, []).append(run.result)
    exact = by_label[EXACT]
    labels = [label for label in by_label if label != EXACT]
    std = pooled_std([_finals(found) for found in by_label.values()]) if pooled else None
    tests = [
        paired_equivalence(_finals(by_label[label]), _finals(exact), margin=margin, level=level, std=std)
        for label in labels
    ]
    judged = adjusted(tests)
    if nothing_learned(_finals(exact), exact[0].majority):
        judged = [without_verdict(one) for one in judged]
    standings: dict[str, Equivalence | None] = {EXACT: None, **dict(zip(labels, judged, strict=True))}
    methods = len(by_label) if pooled else 2
    seconds = fmean(_seconds(exact))
    return [
        ExperimentRow(
            label=label,
            estimator=found[0].estimator,
            mean=fmean(_finals(found)),
            error=stdev(_finals(found)) / len(found) ** 0.5 if len(found) > 1 else None,
            seconds=fmean(_seconds(found)) / seconds if seconds > 0 else 1.0,
            standing=standings[label],
            seeds_needed=_seeds_needed(standings[label], level / max(len(labels), 1), methods),
        )
        for label, found in by_label.items()
    ]


def _seeds_needed(standing: Equivalence | None, level: float, methods: int) -> int | None:
    if standing is None:
        return None
    deviation = standing.error * standing.seeds**0.5
    return seeds_needed(deviation, margin=standing.margin, level=level, methods=methods)


def _finals(results: Sequence[TrainingResult]) -> list[float]:
    return [result.final for result in results]


def _seconds(results: Sequence[TrainingResult]) -> list[float]:
    return [result.history[-1].seconds for result in results]


def folder_of(label: str) -> str:
    """Name of the folder that holds the runs of a label."""
    return "".join(c if c.isalnum() or c in "-._" else "-" for c in label)
