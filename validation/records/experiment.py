"""An experiment as data: what was asked for, every run, and how each estimator stands beside exact training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from wtacrs.validation.records.base import Record, Result, counted, register_result
from wtacrs.validation.records.training import TrainingResult

EquivalenceVerdict = Literal["equivalent", "worse", "better", "undecided", "nothing learned"]


class Equivalence(Record):
    """Outcome of the two one-sided tests, and of the two-sided test for any difference.

    `low` and `high` bound the 1 − 2·level interval of the expected difference. `equivalent` is the p-value of "it is the
    margin or more away from zero", `different` that of "it is zero", both with `freedom` degrees of freedom. The verdict
    is "equivalent" if the first is at most the level; else "worse" or "better" if the second is; else "undecided".
    """

    difference: float
    error: float
    low: float
    high: float
    equivalent: float
    different: float
    seeds: int
    freedom: int
    margin: float
    level: float
    verdict: EquivalenceVerdict


class Design(Record):
    """What was decided before the first run: its SHA-256, when it was recorded (UTC), and the power foreseen, if any."""

    sha256: str
    recorded: str
    power: float | None = None


class ExperimentRun(Record):
    """One run: the label it has in the experiment, its seed, and its result."""

    label: str
    seed: int
    result: TrainingResult


class ExperimentRow(Record):
    """One label over the seeds: mean metric, seconds relative to exact, and how it stands beside exact training.

    `seeds_needed` would show, with probability 0.8, that a method whose results vary as these do and which is as good as
    exact is equivalent, all labels together (Bonferroni); None if more than 10,000, and for exact. `loss` is the mean dev
    loss, `loss_standing` how that stands (a difference above zero is worse); None where it was not asked for.
    """

    label: str
    estimator: str
    mean: float
    error: float | None
    seconds: float
    standing: Equivalence | None
    seeds_needed: int | None = None
    loss: float | None = None
    loss_standing: Equivalence | None = None


@register_result
class ExperimentResult(Result):
    """All runs of an experiment, and the table that follows.

    `config` is the file that asked for them, `design` its hash from before the first run; None in older files.
    """

    main_table: ClassVar[str | None] = "runs"

    kind: Literal["experiment"] = "experiment"
    config: dict[str, Any]
    metric: str
    majority: float
    dev_size: int
    runs: Sequence[ExperimentRun]
    rows: Sequence[ExperimentRow]
    design: Design | None = None

    def values(self, label: str) -> list[float]:
        """What every run of a label counts by: the mean of its last evaluations, as many as the design says."""
        last = int(self.config.get("average_last", 1))
        return [run.result.last(last) for run in self.runs if run.label == label]

    @property
    def headline(self) -> str:
        """Numbers of methods and seeds, and the metric."""
        seeds = {run.seed for run in self.runs}
        return f"{counted(len(self.rows), 'method')} × {counted(len(seeds), 'seed')}, {self.metric}"
