"""Results of the studies of training: gradient norms over steps, accuracy at budgets, transfer between models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from wtacrs.validation.records.base import Record, ScoreKind, Stamp


class NormPoint(Record):
    """One step of one layer: Frobenius norms of the weight gradient, before clipping.

    `used` is the norm of what the optimizer got, `exact` that of dYᵀX on the same x and dy, and `expected`
    `√E‖Ĝ‖²` given them: `√(‖G‖² + Var)` of an unbiased estimator. It is None where the moments have no closed form.
    """

    step: int
    used: float
    exact: float
    expected: float | None


class NormsResult(Record):
    """Gradient norms of one layer over training, with its dW estimated and, from the same start, exact.

    `final` and `final_exact` are the dev metrics at the end of the two runs.
    """

    kind: Literal["gradient norms"] = "gradient norms"
    stamp: Stamp
    task: str
    model: str
    layer: str
    estimator: str
    unbiased: bool
    metric: str
    final: float
    final_exact: float
    estimated: Sequence[NormPoint]
    exact: Sequence[NormPoint]


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


class BudgetsResult(Record):
    """Accuracy and gradient variance against the budget; the variance is that on the exactly trained model."""

    kind: Literal["budgets"] = "budgets"
    stamp: Stamp
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


class Standing(Record):
    """Median over layers of Var Ĝ / ‖G‖² of one estimator in one file."""

    file: str
    scores: ScoreKind
    budget: int | float
    estimator: str
    layers: int
    variance: float


class TransferPair(Record):
    """What the order of estimators on one file says about another.

    `tau` is Kendall's τ-b of the medians, None where all are tied. `regret` is the variance on `target` of the best on
    `source` over that of the best on `target`: 1 says that nothing is lost.
    """

    source: str
    target: str
    scores: ScoreKind
    budget: int | float
    tau: float | None
    chosen: str
    best: str
    regret: float


class TransferResult(Record):
    """Estimators on several files of captures; `models` says what each file is of."""

    kind: Literal["transfer"] = "transfer"
    stamp: Stamp
    models: dict[str, str]
    standings: Sequence[Standing]
    pairs: Sequence[TransferPair]
