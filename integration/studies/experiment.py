"""An experiment as a file: one TOML in, every run in a folder of its own, one result JSON out.

    name = "t5-docstrings"          # model and task as on the command line; data comes from --data
    task = "docstrings"
    seeds = [0, 1, 2]
    margin = 0.01                   # of the metric: a smaller difference is of no consequence
    variance = "pooled"             # of differences, from all methods together; default "own": from each alone

    held_out = 8000                 # dev is a part of a GLUE task's training file, another one for every seed
    average_last = 3                # a run counts by the mean of its last three evaluations
    deviation = 0.005               # of one seed's difference, as a pilot found it: gives the power in advance
    loss_margin = 0.02              # a second measure: equivalence of the dev loss, with training.dev_loss

    needs = { model = "a MiniLM" }  # what must be given by --model or --tokenizer, and what it is

    [training]                      # fields of `FinetuneConfig`
    steps = 900
    lr = 1e-3

    [methods]                       # label = spec, or fields of its own; exact training is always run
    "WTA-CRS 0.3" = 'wta_crs(budget=0.3)'
    "LoRA" = { lora_rank = 8, lr = 1e-3 }
    "LoRA, CRS 0.3" = { lora_rank = 8, lr = 1e-3, estimator = "crs(budget=0.3)" }
    "planned" = { plan = "plan.json" }          # of `wtacrs plan`, from the current folder or beside this file
    "ours" = 'code/mine.py:Mine(budget=0.3)'    # a path from the current folder

Own files stand in a table in place of `task`; its keys are the fields of `OwnFiles`, paths from the current folder:

    [data]
    train = "reviews-train.csv"
    dev = "reviews-dev.csv"
    text = "review"
    label = "stars"

The same command continues an interrupted experiment in its folder. Finished runs keep no weights. What was decided
beforehand is in the folder before the first run, `design.json`: the file's content, its SHA-256, the date and the power.
An experiment whose file has changed since does not go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from pydantic import Field, field_validator

from wtacrs.estimators import InputError
from wtacrs.figures.plots import experiment as figure
from wtacrs.integration.studies.experiment_config import ExperimentBase, read_config
from wtacrs.integration.studies.experiment_runs import RunOptions, train_experiment
from wtacrs.integration.studies.output import draw_or_remove
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.validation.records.experiment import Equivalence, ExperimentResult, ExperimentRow, ExperimentRun
from wtacrs.validation.records.results import write_result
from wtacrs.validation.records.training import TrainingResult
from wtacrs.validation.statistics.equivalence import (
    adjusted,
    nothing_learned,
    paired_equivalence,
    pooled_std,
    power,
    seeds_needed,
    without_verdict,
)

EXACT = "exact"


class ExperimentConfig(ExperimentBase):
    """What the file says, checked before anything is loaded."""

    methods: dict[str, dict[str, Any]] = Field(min_length=1)

    @property
    def power(self) -> float | None:
        """Probability that a method as good as exact is found equivalent, all methods together; None if not foreseen."""
        if self.deviation is None:
            return None
        methods = len(self.methods) + 1 if self.variance == "pooled" else 2
        level = self.level / len(self.methods)
        return power(len(self.seeds), self.deviation, margin=self.margin, level=level, methods=methods)

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
        self.refuse_reserved(self.methods)
        if "estimator" in self.training:
            raise InputError("training.estimator is set by the methods")
        folders: dict[str, str] = {}
        for label in (EXACT, *self.methods):
            other = folders.setdefault(folder_of(label), label)
            if other != label:
                raise InputError(f"methods {other!r} and {label!r} would share a folder; name one otherwise")
        found = {
            label: FinetuneConfig(**self.training | fields)
            for label, fields in {EXACT: {}, **self.methods}.items()
        }
        for one in found.values():
            one.check_average(self.average_last)
        return found


def read_experiment(path: Path) -> ExperimentConfig:
    """The experiment that a TOML file describes.

    Raises:
        InputError: if the file is missing, is no TOML, or names something unusable.
    """
    return read_config(path, {"methods": ExperimentConfig})


def run_experiment(config: ExperimentConfig, out: Path, options: RunOptions | None = None) -> ExperimentResult:
    """Train exactly and with every estimator from the same seeds; writes `experiment.json` and `experiment.png`.

    Args:
        config: the experiment.
        out: its folder; `LABEL/seed-N` are the runs.
        options: what the call adds to the file: other models, runs to copy, progress.

    Raises:
        InputError: as `finetune`, and if a run in the folder had other settings.
    """
    settings = config.settings()
    trained = train_experiment(
        config,
        settings,
        folder_of,
        out,
        options or RunOptions(),
        crossed=f"{len(settings)} methods",
        writes="experiment.json",
        foreseen=_foreseen(config),
        power=config.power,
    )
    runs = [
        ExperimentRun(label=label, seed=seed, result=trained.results[label, seed])
        for label in settings
        for seed in config.seeds
    ]
    found = ExperimentResult(
        **trained.common,
        runs=runs,
        rows=experiment_rows(
            runs,
            margin=config.margin,
            level=config.level,
            pooled=config.variance == "pooled",
            average_last=config.average_last,
            loss_margin=config.loss_margin,
        ),
    )
    write_result(out / "experiment.json", found)
    draw_or_remove(lambda path: figure.draw(found, path), out / "experiment.png")
    return found


def _foreseen(config: ExperimentConfig) -> list[str]:
    if config.power is None:
        return []
    return [
        f"power {config.power:.2f} to find a method that is as good as exact equivalent within {config.margin:g}, if one "
        f"seed's difference varies by {config.deviation:g}"
    ]


def experiment_rows(
    runs: Sequence[ExperimentRun],
    *,
    margin: float,
    level: float,
    pooled: bool = False,
    average_last: int = 1,
    loss_margin: float | None = None,
) -> list[ExperimentRow]:
    """One row per label, exact first; equivalence to exact by Holm over the labels.

    The variance of a difference is estimated from all labels together if it is pooled, else from each alone. A run counts
    by the mean of its last evaluations. There is no verdict where exact training is not clearly better than the most
    frequent class. With a margin for the dev loss, that is judged likewise, as a family of its own.
    """
    by_label: dict[str, list[TrainingResult]] = {}
    for run in runs:
        by_label.setdefault(run.label, []).append(run.result)
    exact = by_label[EXACT]
    values = {label: [one.last(average_last) for one in found] for label, found in by_label.items()}
    standings = _standings(values, margin, level, pooled=pooled)
    if nothing_learned(values[EXACT], exact[0].majority):
        standings = {label: None if one is None else without_verdict(one) for label, one in standings.items()}
    losses: dict[str, list[float]] = {}
    loss_standings: dict[str, Equivalence | None] = {}
    if loss_margin is not None:
        losses = {label: [r.last(average_last, "loss") for r in found] for label, found in by_label.items()}
        loss_standings = _standings(losses, loss_margin, level, pooled=pooled)
    seconds = fmean(_seconds(exact))
    return [
        ExperimentRow(
            label=label,
            estimator=found[0].estimator,
            mean=fmean(values[label]),
            error=stdev(values[label]) / len(found) ** 0.5 if len(found) > 1 else None,
            seconds=fmean(_seconds(found)) / seconds if seconds > 0 else 1.0,
            standing=standings[label],
            seeds_needed=_seeds_needed(
                standings[label], level / max(len(by_label) - 1, 1), len(by_label) if pooled else 2
            ),
            loss=fmean(losses[label]) if label in losses else None,
            loss_standing=_lower_is_better(loss_standings.get(label)),
        )
        for label, found in by_label.items()
    ]


def _standings(
    values: Mapping[str, Sequence[float]], margin: float, level: float, *, pooled: bool
) -> dict[str, Equivalence | None]:
    """Every label beside exact, corrected over the labels; None for exact itself."""
    std = pooled_std(list(values.values())) if pooled else None
    labels = [label for label in values if label != EXACT]
    tests = [
        paired_equivalence(values[label], values[EXACT], margin=margin, level=level, std=std) for label in labels
    ]
    return {EXACT: None, **dict(zip(labels, adjusted(tests), strict=True))}


def _lower_is_better(found: Equivalence | None) -> Equivalence | None:
    other = {"worse": "better", "better": "worse"}
    if found is None or found.verdict not in other:
        return found
    return found.model_copy(update={"verdict": other[found.verdict]})


def _seeds_needed(standing: Equivalence | None, level: float, methods: int) -> int | None:
    if standing is None:
        return None
    deviation = standing.error * standing.seeds**0.5
    return seeds_needed(deviation, margin=standing.margin, level=level, methods=methods)


def _seconds(results: Sequence[TrainingResult]) -> list[float]:
    return [result.history[-1].seconds for result in results]


def folder_of(label: str) -> str:
    """Name of the folder that holds the runs of a label."""
    return "".join(c if c.isalnum() or c in "-._" else "-" for c in label)
