"""Accuracy, gradient variance and memory against the budget, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from wtacrs.validation.records.base import Record, Result, ScoreKind, register_result
from wtacrs.validation.records.noise import NoiseRatio


class Scores(Record):
    """A dev metric over seeds.

    `seed_error` is the standard error of the mean over seeds (None with one seed), `dev_error` the binomial standard
    error that a dev set of this size gives an accuracy (None for other metrics, and where every seed has dev examples of
    its own: they scatter over the seeds).
    """

    values: Sequence[float]
    mean: float
    seed_error: float | None
    dev_error: float | None


class Difference(Record):
    """Mean metric minus that of exact training, seed by seed, with a 95 % interval.

    The half width joins Student's interval of the paired differences over seeds and the binomial one of two dev
    samples taken to be independent. They share their examples, so that the second part is too wide rather than too
    narrow. What is unknown (one seed, no accuracy), or scatters over the seeds already (dev examples of every seed's
    own), is left out; with nothing known there is no interval.
    """

    value: float
    low: float | None
    high: float | None

    @property
    def within_noise(self) -> bool | None:
        """Whether the interval holds 0; None without an interval."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high


class BudgetLimit(Record):
    """A budget on the measured range, or beyond its end: `side` "below" the least one or "above" the largest one."""

    budget: int | float
    side: Literal["below", "at", "above"] = "at"

    def __str__(self) -> str:
        return f"{self.budget:.3g}" if self.side == "at" else f"{self.side} {self.budget:g}"


class BudgetRange(Record):
    """A budget with the ends of its interval, which are None where they are unknown."""

    value: BudgetLimit
    low: BudgetLimit | None
    high: BudgetLimit | None

    def __str__(self) -> str:
        return str(self.value) if None in (self.low, self.high) else f"{self.value} [{self.low} … {self.high}]"


class StepBytes(Record):
    """A training step in bytes: `kept` for the backward pass, `linear` of that by linear layers alone, `peak` in all.

    `peak` is beyond parameters, buffers and the batch, and holds the gradients of the parameters.
    """

    kept: int
    linear: int
    peak: int


class BudgetNoise(Record):
    """The estimator's squared error over the minibatch's variance: layers that are sampled over all layers."""

    scores: ScoreKind
    ratio: NoiseRatio


class BudgetPoint(Record):
    """One budget.

    Attributes:
        scores: dev metric over seeds; None without training.
        difference: from exact training; None without training.
        variance: median over sampled layers and batches of Var Ĝ / ‖G‖², by kind of scores.
        noise: over the minibatch's variance; empty in files from before it was measured.
        memory: None in files from before it was measured.
    """

    budget: int | float
    scores: Scores | None = None
    difference: Difference | None = None
    variance: dict[str, float]
    noise: Sequence[BudgetNoise] = ()
    memory: StepBytes | None = None

    def ratio(self, scores: str) -> NoiseRatio | None:
        """The noise with one kind of scores."""
        return next((one.ratio for one in self.noise if one.scores == scores), None)


class NoiseThreshold(Record):
    """The budget at which sampling adds as much variance as the minibatch has."""

    scores: ScoreKind
    at: BudgetRange


class VarianceCost(Record):
    """What the variance of the gradient costs: metric = that of exact training − slope · Var Ĝ / ‖G‖².

    Attributes:
        scores: whose variance it is.
        slope: loss of the metric per unit of relative variance.
        error: standard error of the slope over the seeds.
        low: end of its interval.
        high: end of its interval.
        level: of the interval.
        margin: of the metric.
        seeds: number of them.
        threshold: the budget at which the loss is the margin; None where the interval of the slope reaches 0.
        harmless: the budget from which on the loss is below the margin, by the upper end of the slope.
    """

    scores: str
    slope: float
    error: float
    low: float
    high: float
    level: float
    margin: float
    seeds: int
    threshold: BudgetRange | None
    harmless: BudgetLimit

    @property
    def sentence(self) -> str:
        """The threshold, or from where on there is no loss that counts."""
        unit = f"a relative variance of 1 costs {self.slope:.2g} [{self.low:.2g} … {self.high:.2g}] of the metric"
        if self.threshold is not None:
            return f"{unit}; the budget at which the loss comes to {self.margin:g} is {self.threshold}"
        if self.harmless.side == "below":
            told = f"below {self.margin:g} at every budget"
        elif self.harmless.side == "above":
            told = f"at no budget known to be below {self.margin:g}"
        else:
            told = f"below {self.margin:g} from budget {self.harmless} on"
        return f"{unit}: no loss is seen; it is {told}"


@register_result
class BudgetsResult(Result):
    """Accuracy, gradient variance and memory against the budget; variance and memory are those of the exact model.

    Attributes:
        task: its name.
        model: its name.
        estimator: without its budget.
        metric: of the dev examples.
        majority: what always answering one class scores.
        dev_size: dev examples, of every seed.
        steps: of training; without runs the exact steps before the measurement.
        seeds: of the runs; empty without training.
        layers: that are sampled and measured.
        exact: exact training; None without training.
        points: by rising budget.
        average_last: a run counts by the mean of its last evaluations.
        batches: that the variance is measured on.
        memory: of the exact step.
        noise_thresholds: by kind of scores.
        cost: of variance; None without training or with one seed, and where exact training learned nothing.
    """

    main_table: ClassVar[str | None] = "points"
    table_cells: ClassVar[Sequence[str]] = ("seeds",)

    kind: Literal["budgets"] = "budgets"
    task: str
    model: str
    estimator: str
    metric: str
    majority: float
    dev_size: int
    steps: int
    seeds: Sequence[int]
    layers: int
    exact: Scores | None = None
    points: Sequence[BudgetPoint]
    average_last: int = 1
    batches: int = 1
    memory: StepBytes | None = None
    noise_thresholds: Sequence[NoiseThreshold] = ()
    cost: VarianceCost | None = None


def budget_sentences(result: BudgetsResult) -> list[str]:
    """The thresholds in words: where noise is that of the minibatch, and where variance costs the margin."""
    told = [
        f"{one.scores}: the budget at which sampling adds as much variance as the minibatch has is {one.at}"
        for one in result.noise_thresholds
    ]
    return told if result.cost is None else [*told, f"{result.cost.scores}: {result.cost.sentence}"]
