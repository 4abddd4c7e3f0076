"""Rules for the number of winners |C| in few numbers: regrets over all cases and by what they differ in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy
from numpy.typing import NDArray

from wtacrs.estimators import rows_for
from wtacrs.validation.records.base import counted
from wtacrs.validation.records.winners import OPTIMAL, PAPER, WinnersResult
from wtacrs.validation.summaries.sweep import budget_order

Factor = Literal["model", "task", "step", "scores", "budget"]
FACTORS: tuple[Factor, ...] = ("model", "task", "step", "scores", "budget")
QUANTILE = 0.95
"""Of regrets: nearly the worst case, and not the one layer that happens to be nearly exact."""
_RESAMPLES = 500
_LEVEL = 0.95


@dataclass(frozen=True)
class RegretSummary:
    """Regrets of one rule over some of the cases.

    Attributes:
        rule: as `winners` of `wta_crs` spells it.
        cases: layers, times, scores, budgets, trainings.
        median: of the regrets.
        quantile: their 95 % quantile.
        worst: the largest finite one.
        infinite: cases in which the best |C| is exact, and that of the rule is not.
        median_interval: 95 % interval by bootstrap over trainings; None with a single training.
        quantile_interval: the same of the quantile.
    """

    rule: str
    cases: int
    median: float
    quantile: float
    worst: float
    infinite: int
    median_interval: tuple[float, float] | None
    quantile_interval: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class WinnerCases:
    """The cases of a result as columns of equal length.

    Attributes:
        factors: by name, the level of every case.
        training: number of the training that a case is from: a model, a task and a seed.
        share: |C|/k of least variance.
        regrets: by rule.
    """

    factors: dict[str, NDArray[Any]]
    training: NDArray[numpy.int64]
    share: NDArray[numpy.float64]
    regrets: dict[str, NDArray[numpy.float64]]

    def where(self, factor: str, level: object) -> WinnerCases:
        """The cases of one level."""
        chosen = self.factors[factor] == level
        return WinnerCases(
            {name: values[chosen] for name, values in self.factors.items()},
            self.training[chosen],
            self.share[chosen],
            {rule: values[chosen] for rule, values in self.regrets.items()},
        )

    def levels(self, factor: str) -> list[Any]:
        """The levels of a factor in order of appearance; numbers in their own order."""
        found = list(dict.fromkeys(self.factors[factor].tolist()))
        return found if found and isinstance(found[0], str) else sorted(found, key=budget_order)

    @cached_property
    def summaries(self) -> dict[str, RegretSummary]:
        """The summary of every rule."""
        return {rule: _summary(rule, values, self.training) for rule, values in self.regrets.items()}

    @property
    def recommended(self) -> RegretSummary:
        """The rule of least 95 % quantile; of equal ones that of least worst case, then of least median."""
        return min(self.summaries.values(), key=lambda one: (one.quantile, one.infinite, one.worst, one.median))

    @property
    def shares(self) -> tuple[float, float, float]:
        """First quartile, median and third quartile of the best |C|/k."""
        low, middle, high = numpy.quantile(self.share, (0.25, 0.5, 0.75)).tolist()
        return low, middle, high


def winner_cases(result: WinnersResult) -> WinnerCases:
    """All cases of a result."""
    factors: dict[str, list[Any]] = {name: [] for name in FACTORS}
    trainings: dict[tuple[str, str, int], int] = {}
    training: list[int] = []
    share: list[float] = []
    regrets: dict[str, list[float]] = {rule: [] for rule in result.rules}
    for state in result.states:
        number = trainings.setdefault((state.model, state.task, state.seed), len(trainings))
        for choice in state.choices:
            count = len(state.layers)
            values = (state.model, state.task, state.step, choice.scores, choice.budget)
            for name, value in zip(FACTORS, values, strict=True):
                factors[name] += [value] * count
            training += [number] * count
            share += [b / rows_for(choice.budget, n) for b, n in zip(choice.best, state.rows, strict=True)]
            for rule, held in regrets.items():
                held += choice.regrets[rule]
    return WinnerCases(
        {name: numpy.array(values, dtype=object) for name, values in factors.items()},
        numpy.array(training, dtype=numpy.int64),
        numpy.array(share, dtype=numpy.float64),
        {rule: numpy.array(values, dtype=numpy.float64) for rule, values in regrets.items()},
    )


def grouped(cases: WinnerCases, factor: Factor) -> Iterator[tuple[Any, WinnerCases]]:
    """The cases of every level of a factor."""
    for level in cases.levels(factor):
        yield level, cases.where(factor, level)


def rule_label(rule: str) -> str:
    """A rule in words.

    >>> rule_label('"paper"'), rule_label("0.0"), rule_label("0.25")
    ("the paper's rule", '|C| = 0', '|C| = 0.25 k')
    """
    words = {PAPER: "the paper's rule", OPTIMAL: "the optimal rule"}
    if rule in words:
        return words[rule]
    return "|C| = 0" if float(rule) == 0 else f"|C| = {float(rule):g} k"


def winners_sentences(result: WinnersResult) -> list[str]:
    """What to take over all cases, and with every kind of scores, with its worst case and that of the others."""
    cases = winner_cases(result)
    told = [f"Over all {counted(len(cases.share), 'case')}: {_advice(cases)}"]
    kinds = list(grouped(cases, "scores"))
    return told + ([f"With the scores {kind}: {_advice(some)}" for kind, some in kinds] if len(kinds) > 1 else [])


def _advice(cases: WinnerCases) -> str:
    best = cases.recommended
    others = [one for rule, one in cases.summaries.items() if rule in (PAPER, OPTIMAL) and one is not best]
    beside = "; ".join(f"{rule_label(one.rule)}: {_cost(one)}" for one in others)
    return (
        f"take {rule_label(best.rule)}; variance over the least possible one: {_cost(best)}. Beside it {beside}."
    )


def _cost(one: RegretSummary) -> str:
    around = "" if one.quantile_interval is None else f" {told_interval(one.quantile_interval)}"
    return (
        f"{told_regret(one.median)} in the median, at most {told_regret(one.quantile)}{around} in 95 % of the cases, "
        f"{told_worst(one)} at worst"
    )


def told_regret(value: float) -> str:
    """A regret in few digits.

    >>> told_regret(1.234), told_regret(58.7), told_regret(41234.0), told_regret(float("inf"))
    ('1.23', '58.7', '4.1e+04', 'infinite')
    """
    if math.isinf(value):
        return "infinite"
    if value < 10:
        return f"{value:.2f}"
    return f"{value:.3g}" if value < 1000 else f"{value:.2g}"


def told_interval(found: tuple[float, float] | None) -> str:
    """An interval of regrets; a dash where there is none."""
    return "–" if found is None else f"[{told_regret(found[0])}, {told_regret(found[1])}]"


def told_worst(one: RegretSummary) -> str:
    """The worst case, and how often there is a worse one that has no number."""
    return told_regret(one.worst) + (f" ({one.infinite:,} infinite)" if one.infinite else "")


def _summary(rule: str, regrets: NDArray[numpy.float64], training: NDArray[numpy.int64]) -> RegretSummary:
    order = numpy.argsort(regrets, kind="stable")
    ordered = regrets[order]
    middle, quantile = (float(_quantiles(ordered, numpy.ones((1, ordered.size)), q)[0]) for q in (0.5, QUANTILE))
    weights = _resampled(training[order])
    intervals = [None if weights is None else _interval(_quantiles(ordered, weights, q)) for q in (0.5, QUANTILE)]
    finite = ordered[numpy.isfinite(ordered)]
    worst = float(finite[-1]) if finite.size else math.inf
    return RegretSummary(rule, ordered.size, middle, quantile, worst, ordered.size - finite.size, *intervals)


def _resampled(training: NDArray[numpy.int64]) -> NDArray[numpy.float64] | None:
    """How often every case is drawn when trainings are drawn anew; None with a single training."""
    names, place = numpy.unique(training, return_inverse=True)
    if names.size < 2:
        return None
    generator = numpy.random.default_rng(0)
    drawn = generator.multinomial(names.size, numpy.full(names.size, 1 / names.size), size=_RESAMPLES)
    return drawn[:, place].astype(numpy.float64)


def _quantiles(
    ordered: NDArray[numpy.float64], weights: NDArray[numpy.float64], q: float
) -> NDArray[numpy.float64]:
    """The least value that has the share q of the weight at or below it, for every row of weights."""
    mass = weights.cumsum(axis=1)
    # a share that is met exactly must not be missed by rounding
    reached = mass >= q * mass[:, -1:] - 1e-9
    return ordered[reached.argmax(axis=1)]


def _interval(values: Sequence[float] | NDArray[numpy.float64]) -> tuple[float, float]:
    tail = (1 - _LEVEL) / 2
    low, high = numpy.quantile(values, (tail, 1 - tail), method="inverted_cdf").tolist()
    return low, high
