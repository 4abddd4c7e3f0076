"""Results in few numbers: medians over layers and steps, variance ratios to the oracle, choices of the number of winners."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy

from wtacrs.validation.layers.candidates import sizeless
from wtacrs.validation.layers.compare import median_macs
from wtacrs.validation.layers.series import budget_in_rows, series
from wtacrs.validation.records.compare import ComparisonRow
from wtacrs.validation.records.sweep import WinnerSweep


@dataclass(frozen=True)
class LayerMedian:
    """One estimator at one budget with one kind of scores, over its layers.

    `share` is the share of the bytes its size was fitted to, None at equal rows. `bias_squared`, `variance`, `mse` and
    `mse_of_mean` (over `steps` steps) are medians relative to ‖G‖², each by itself, as is the cosine; `low` and `high`
    are the quartiles of the mean squared error; `error` is the median standard error of the Monte-Carlo rows, None if
    all rows are closed forms. `row_fraction` (None without a budget), `byte_fraction` and `mac_fraction`
    (None where no row states them) are medians of rows kept, bytes stored and scalar multiplications, as fractions of
    exact.
    """

    series: str
    scores: str
    budget: float | None
    share: float | None
    layers: int
    row_fraction: float | None
    byte_fraction: float
    mac_fraction: float | None
    bias_squared: float
    variance: float
    mse: float
    steps: int
    mse_of_mean: float
    cosine: float
    low: float
    high: float
    error: float | None
    methods: tuple[str, ...]

    @property
    def mostly_bias(self) -> bool:
        """More than half of the error does not average out over steps."""
        return self.bias_squared > self.variance


def layer_medians(rows: Iterable[ComparisonRow]) -> list[LayerMedian]:
    """One entry per (scores, estimator, budget or share of bytes), estimators in order of appearance, sizes rising."""
    groups: dict[tuple[str, str, float | None, float | None, bool], list[ComparisonRow]] = {}
    for row in rows:
        counted = budget_in_rows(row.estimator) is not None
        size = (row.budget, None, counted) if row.bytes_share is None else (None, row.bytes_share, True)
        groups.setdefault((row.scores, label(row), *size), []).append(row)
    order = {name: place for place, name in enumerate(dict.fromkeys(key[1] for key in groups))}
    found = [
        _median(name, scores, budget, share, group) for (scores, name, budget, share, _), group in groups.items()
    ]
    return sorted(
        found,
        key=lambda e: (e.share is not None, e.scores, order[e.series], e.row_fraction or 0.0, e.byte_fraction),
    )


def label(row: ComparisonRow) -> str:
    """What the estimator of a row has in common at all sizes."""
    return series(row.estimator) if row.bytes_share is None else series(sizeless(row.requested))


@dataclass(frozen=True)
class OracleRatio:
    """The price of not knowing dY: an estimator's variance with these scores over that with the oracle's.

    `prices` holds one number per layer; layers without variance under the oracle's scores are left out.
    """

    series: str
    scores: str
    budget: float | None
    share: float | None
    prices: tuple[float, ...]


def oracle_ratios(rows: Iterable[ComparisonRow]) -> list[OracleRatio]:
    """One entry per (scores other than the oracle's, estimator, budget or share of the bytes)."""
    held = list(rows)
    oracle = {_same(row): row.variance for row in held if row.scores == "oracle"}
    groups: dict[tuple[str, str, float | None, float | None], list[float]] = {}
    for row in held:
        best = oracle.get(_same(row), 0.0)
        if row.scores != "oracle" and best > 0:
            size = (row.budget, None) if row.bytes_share is None else (None, row.bytes_share)
            groups.setdefault((label(row), row.scores, *size), []).append(row.variance / best)
    return [
        OracleRatio(name, scores, budget, share, tuple(p)) for (name, scores, budget, share), p in groups.items()
    ]


def _same(row: ComparisonRow) -> tuple[str, str, float | None]:
    return row.layer, row.estimator, row.bytes_share


def row_fraction(row: ComparisonRow) -> float | None:
    """The part of the n rows that the budget asks for, whether it is written as a fraction or as a number."""
    if row.budget is None:
        return None
    if budget_in_rows(row.estimator) is None and row.budget <= 1:
        return row.budget
    return min(row.budget / max(row.n, 1), 1.0)


def standard_error(row: ComparisonRow) -> float | None:
    """Standard error of the row's MSE; None for a closed form."""
    return row.mse_error


def ratio(value: float, reference: float) -> float:
    """`value / reference`; 1 where both are zero, infinite where the reference alone is."""
    if reference:
        return value / reference
    return math.inf if value else 1.0


def running_median(values: Sequence[float], width: int) -> list[float]:
    """Median of the values within `width // 2` places of each.

    >>> running_median([1.0, 9.0, 2.0, 3.0], 3)
    [5.0, 2.0, 3.0, 2.5]
    """
    reach = width // 2
    return [median(values[max(i - reach, 0) : i + reach + 1]) for i in range(len(values))]


def choice_variance(sweep: WinnerSweep, winners: int) -> float:
    """Variance at a listed number of winners; with k winners nothing is left to chance."""
    return 0.0 if winners == sweep.k else sweep.variance[sweep.winners.index(winners)]


def regret(sweep: WinnerSweep, winners: int) -> float | None:
    """Variance at that number of winners over the least possible one; 1 is best. None where no best is known."""
    if sweep.best is None:
        return None
    return ratio(choice_variance(sweep, winners), choice_variance(sweep, sweep.best))


@dataclass(frozen=True)
class ChoiceSummary:
    """The choices of |C| over the layers and batches of one captured file, at one budget with one kind of scores.

    The paper's rule, the S_T² rule (`optimal`) and the true minimiser: medians of |C|/k, median and largest regret,
    and the regrets case by case. Where ‖G_T‖² was left out there are no regrets and no best |C|.
    """

    captures: str
    scores: str
    budget: int | float
    cases: int
    paper_fraction: float
    optimal_fraction: float
    best_fraction: float | None
    paper_regrets: tuple[float, ...]
    optimal_regrets: tuple[float, ...]


def choice_summaries(sweeps: Iterable[WinnerSweep]) -> list[ChoiceSummary]:
    """One entry per (captures, scores, budget), in order of appearance, budgets rising."""
    groups: dict[tuple[str, str, str], list[WinnerSweep]] = {}
    for sweep in sweeps:
        groups.setdefault((sweep.captures, sweep.scores, repr(sweep.budget)), []).append(sweep)
    files = list(dict.fromkeys(captures for captures, _, _ in groups))
    kinds = list(dict.fromkeys(scores for _, scores, _ in groups))
    found = [_choices(group) for group in groups.values()]
    return sorted(found, key=lambda e: (files.index(e.captures), kinds.index(e.scores), budget_order(e.budget)))


def budget_order(budget: int | float) -> tuple[bool, float]:
    """Order of budgets: fractions first, then numbers of rows."""
    return isinstance(budget, int), budget


def _choices(group: Sequence[WinnerSweep]) -> ChoiceSummary:
    first = group[0]
    exact = [s for s in group if s.best is not None]
    return ChoiceSummary(
        captures=first.captures,
        scores=first.scores,
        budget=first.budget,
        cases=len(group),
        paper_fraction=median(s.paper / s.k for s in group),
        optimal_fraction=median(s.optimal / s.k for s in group),
        best_fraction=median(s.best / s.k for s in exact if s.best is not None) if exact else None,
        paper_regrets=tuple(r for s in exact if (r := regret(s, s.paper)) is not None),
        optimal_regrets=tuple(r for s in exact if (r := regret(s, s.optimal)) is not None),
    )


def which_winners(sweeps: Sequence[WinnerSweep]) -> list[str]:
    """The answer to "which |C|?" in a sentence for every kind of scores."""
    return [
        f"Which |C|, {kind}? {_answer([s for s in sweeps if s.scores == kind])}"
        for kind in dict.fromkeys(s.scores for s in sweeps)
    ]


def _answer(sweeps: Sequence[WinnerSweep]) -> str:
    exact = [s for s in sweeps if s.best is not None]
    if not exact:
        return "Not known: without ‖G_T‖² there is no exact variance to compare."
    rules = {"the S_T² rule": "optimal", "the paper's rule": "paper"}
    found = {name: [(regret(s, getattr(s, rule)) or 0.0, s) for s in exact] for name, rule in rules.items()}
    better, other = sorted(
        found, key=lambda name: (median(r for r, _ in found[name]), max(r for r, _ in found[name]))
    )
    first, second = _cost(found[better]), _cost(found[other])
    return f"That of {better}: variance over that of the best |C| {first}; {other}: {second}; {len(exact)} cases."


def _cost(found: list[tuple[float, WinnerSweep]]) -> str:
    worst, where = max(found, key=lambda pair: pair[0])
    told = f"{median(r for r, _ in found):.3f} in the median"
    if worst == 1.0:
        return f"{told} and at worst"
    size = f"{worst:.4g}" if math.isfinite(worst) else "infinite, the best one being exact,"
    return f"{told}, at worst {size} in {where.layer} at budget {where.budget:g}"


def _median(
    name: str, scores: str, budget: float | None, share: float | None, rows: Sequence[ComparisonRow]
) -> LayerMedian:
    with numpy.errstate(invalid="ignore"):  # infinite errors have no quartiles: nan says so
        low, high = numpy.quantile([row.mse for row in rows], [0.25, 0.75])
    fractions = [f for f in map(row_fraction, rows) if f is not None]
    errors = [e for e in map(standard_error, rows) if e is not None]
    return LayerMedian(
        series=name,
        scores=scores,
        budget=budget,
        share=share,
        layers=len({row.layer for row in rows}),
        row_fraction=median(fractions) if fractions else None,
        byte_fraction=median(ratio(row.saved_bytes, row.exact_bytes) for row in rows),
        mac_fraction=median_macs(rows),
        bias_squared=median(row.bias_squared for row in rows),
        variance=median(row.variance for row in rows),
        mse=median(row.mse for row in rows),
        steps=rows[0].steps,
        mse_of_mean=median(row.mse_of_mean for row in rows),
        cosine=median(row.cosine for row in rows),
        low=float(low),
        high=float(high),
        error=median(errors) if errors else None,
        methods=tuple(sorted({row.method for row in rows})),
    )
