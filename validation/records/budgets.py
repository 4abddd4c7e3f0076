"""Accuracy and gradient variance against the budget, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from wtacrs.validation.records.base import Record, Result, register_result


class Scores(Record):
    """A dev metric over seeds.

    `seed_error` is the standard error of the mean over seeds (None with one seed), `dev_error` the binomial standard
    error that a dev set of this size gives an accuracy (None for other metrics).
    """

    values: Sequence[float]
    mean: float
    seed_error: float | None
    dev_error: float | None


class Difference(Record):
    """Mean metric minus that of exact training, seed by seed, with a 95 % interval.

    The half width joins Student's interval of the paired differences over seeds and the binomial one of two dev
    samples taken to be independent. They share their examples, so that the second part is too wide rather than too
    narrow. What is unknown (one seed, no accuracy) is left out; with nothing known there is no interval.
    """

    value: float
    low: float | None
    high: float | None

    @property
    def within_noise(self) -> bool | None:
        """Whether the interval holds 0; None without an interval."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high


class BudgetPoint(Record):
    """One budget: the dev metric, its difference from exact, and medians over layers of Var Ĝ / ‖G‖² by scores."""

    budget: int | float
    scores: Scores
    difference: Difference
    variance: dict[str, float]


@register_result
class BudgetsResult(Result):
    """Accuracy and gradient variance against the budget; the variance is that on the exactly trained model."""

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
    exact: Scores
    points: Sequence[BudgetPoint]
