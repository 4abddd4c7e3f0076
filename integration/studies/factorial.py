"""Crossed factors as a file: every combination is trained from the same seeds, and effects are told with intervals.

    name = "schedules"
    task = "sst2"
    seeds = [0, 1, 2]
    margin = 0.01                   # of the metric: a smaller effect is of no consequence

    [training]                      # fields of `FinetuneConfig` that all runs share
    steps = 300

    [factors.dW]                    # the first factor is the one whose effects are estimated; its first level is the base
    "exact" = {}
    "WTA-CRS 0.1" = { estimator = "wta_crs(budget=0.1)" }

    [factors.schedule]
    "constant" = { schedule = "constant" }
    "cosine" = { schedule = "cosine" }

Other keys are those of an experiment (`wtacrs.integration.studies.experiment`), whose [methods] are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from wtacrs.estimators import InputError
from wtacrs.figures.plots import factorial as figure
from wtacrs.integration.studies.experiment_config import ExperimentBase
from wtacrs.integration.studies.experiment_runs import RunOptions, train_experiment
from wtacrs.integration.studies.output import draw_or_remove
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.validation.records.factorial import FactorialResult, FactorialRun
from wtacrs.validation.records.results import write_result
from wtacrs.validation.statistics.factorial import Cell, cell_means, cells_of, contrasts


class FactorialConfig(ExperimentBase):
    """What the file says, checked before anything is loaded."""

    factors: dict[str, dict[str, dict[str, Any]]] = Field(min_length=1)

    @field_validator("factors")
    @classmethod
    def _several_levels(cls, value: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
        for name, levels in value.items():
            if len(levels) < 2:
                raise ValueError(f"{name!r} has {len(levels)} level: at least two are needed")
        return value

    @property
    def levels(self) -> dict[str, list[str]]:
        """Names of the levels of every factor."""
        return {name: list(levels) for name, levels in self.factors.items()}

    def settings(self) -> dict[Cell, FinetuneConfig]:
        """How the runs of every cell are trained, but for the seed.

        Raises:
            InputError: on unusable fields, on a field that two factors set, and on cells that would share a folder.
        """
        self.refuse_reserved(
            {f"factors.{f}.{level}": v for f, ls in self.factors.items() for level, v in ls.items()}
        )
        owners: dict[str, str] = {}
        for name, levels in self.factors.items():
            for field in {field for fields in levels.values() for field in fields}:
                if owners.setdefault(field, name) != name:
                    raise InputError(f"factors {owners[field]!r} and {name!r} both set {field}")
        found: dict[Cell, FinetuneConfig] = {}
        for cell in cells_of(self.levels):
            chosen = [self.factors[name][level] for name, level in zip(self.factors, cell, strict=True)]
            found[cell] = FinetuneConfig(**self.training | {k: v for fields in chosen for k, v in fields.items()})
        for one in found.values():
            one.check_average(self.average_last)
        folders = [folder_of(cell) for cell in found]
        if len(set(folders)) < len(folders):
            raise InputError("factors: two combinations of levels would share a folder; name levels otherwise")
        return found


def run_factorial(config: FactorialConfig, out: Path, options: RunOptions | None = None) -> FactorialResult:
    """Train every combination from the same seeds; writes `factorial.json` and `factorial.png`.

    Args:
        config: the experiment.
        out: its folder; `CELL/seed-N` are the runs.
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
        crossed=" × ".join(f"{len(levels)} {name}" for name, levels in config.levels.items()),
        writes="factorial.json",
    )
    results = trained.results
    runs = [
        FactorialRun(levels=dict(zip(config.factors, cell, strict=True)), seed=seed, result=results[cell, seed])
        for cell in settings
        for seed in config.seeds
    ]
    values = {cell: [results[cell, seed].last(config.average_last) for seed in config.seeds] for cell in settings}
    whole = FactorialResult(
        **trained.common,
        factors=config.levels,
        runs=runs,
        cells=cell_means(config.levels, values),
        contrasts=contrasts(
            config.levels,
            values,
            margin=config.margin,
            level=config.level,
            pooled=config.variance == "pooled",
        ),
    )
    write_result(out / "factorial.json", whole)
    draw_or_remove(lambda path: figure.draw(whole, path), out / "factorial.png")
    return whole


def folder_of(cell: Cell) -> str:
    """Name of the folder that holds the runs of a cell."""
    return "_".join("".join(c if c.isalnum() or c in "-." else "-" for c in level) for level in cell)
