"""A comparison in few numbers: medians over layers, variance ratios to the oracle's scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy

from wtacrs.estimators import InputError
from wtacrs.estimators.core.sizing import SIZES, budget_of
from wtacrs.validation.layers.compare import median_macs
from wtacrs.validation.records.compare import ComparisonRow
from wtacrs.validation.summaries.ratio import ratio
from wtacrs.validation.summaries.series import series


@dataclass(frozen=True)
class LayerMedian:
    """One estimator at one budget with one kind of scores, over its layers.

    `share` is the share of the bytes its size was fitted to, None at equal rows. `bias_squared`, `variance`, `mse`
    and `mse_of_mean` (over `steps` steps) are medians relative to ‖G‖², each by itself, as is the cosine; `low` and
    `high` are the quartiles of the mean squared error; `error` is the median standard error of the Monte-Carlo rows,
    and `bias_error` that of their bias², None if all rows are closed forms. `row_fraction` (None without a budget),
    `byte_fraction` and `mac_fraction` (None where no row states them) are medians of rows kept, bytes stored and
    multiply–accumulates, as fractions of exact, and `time` of the times over exact (None where none was measured).
    """

    series: str
    scores: str
    budget: int | float | None
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
    time: float | None = None
    bias_error: float | None = None

    @property
    def mostly_bias(self) -> bool:
        """More than half of the error does not average out over steps."""
        return self.bias_squared > self.variance


def layer_medians(rows: Iterable[ComparisonRow]) -> list[LayerMedian]:
    """One entry per (scores, estimator, budget or share of bytes), estimators in order of appearance, sizes rising."""
    groups: dict[tuple[str, str, int | float | None, float | None, bool], list[ComparisonRow]] = {}
    for row in rows:
        counted = _in_rows(row)
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
    return series(row.estimator) if row.bytes_share is None else series(row.requested, SIZES)


@dataclass(frozen=True)
class OracleRatio:
    """Variance ratio to the oracle: an estimator's variance with these scores over that with the oracle's.

    `ratios` holds one number per layer; `left_out` layers have no variance under the oracle's scores, and no ratio.
    """

    series: str
    scores: str
    budget: int | float | None
    share: float | None
    ratios: tuple[float, ...]
    left_out: int = 0


def oracle_ratios(rows: Iterable[ComparisonRow]) -> list[OracleRatio]:
    """One entry per (scores other than the oracle's, estimator, budget or share of the bytes)."""
    held = list(rows)
    oracle = {_same(row): row.variance for row in held if row.scores == "oracle"}
    groups: dict[tuple[str, str, int | float | None, float | None], list[float | None]] = {}
    for row in held:
        if row.scores != "oracle":
            best = oracle.get(_same(row), 0.0)
            size = (row.budget, None) if row.bytes_share is None else (None, row.bytes_share)
            found = row.variance / best if best > 0 else None
            groups.setdefault((label(row), row.scores, *size), []).append(found)
    ratios = {key: tuple(one for one in found if one is not None) for key, found in groups.items()}
    return [OracleRatio(*key, found, len(groups[key]) - len(found)) for key, found in ratios.items() if found]


def _same(row: ComparisonRow) -> tuple[str, str, float | None]:
    return row.layer, row.estimator, row.bytes_share


def row_fraction(row: ComparisonRow) -> float | None:
    """The part of the n rows that the budget asks for, whether it is written as a fraction or as a number."""
    if row.budget is None:
        return None
    if not _in_rows(row) and row.budget <= 1:
        return row.budget
    return min(row.budget / max(row.n, 1), 1.0)


def _in_rows(row: ComparisonRow) -> bool:
    """Whether the budget is a number of rows: `crs(budget=1)` keeps one, `crs(budget=1.0)` all of them."""
    try:
        return isinstance(budget_of(row.estimator), int)
    except InputError:  # no spec
        return False


def standard_error(row: ComparisonRow) -> float | None:
    """Standard error of the row's MSE; None for a closed form."""
    return row.mse_error


def _median(
    name: str, scores: str, budget: int | float | None, share: float | None, rows: Sequence[ComparisonRow]
) -> LayerMedian:
    with numpy.errstate(invalid="ignore"):  # infinite errors have no quartiles: nan says so
        low, high = numpy.quantile([row.mse for row in rows], [0.25, 0.75])
    fractions = [f for f in map(row_fraction, rows) if f is not None]
    times = [row.time for row in rows if row.time is not None]
    errors = [e for e in map(standard_error, rows) if e is not None]
    bias_errors = [row.bias_squared_error for row in rows if row.bias_squared_error is not None]
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
        time=median(times) if times else None,
        bias_error=median(bias_errors) if bias_errors else None,
    )
