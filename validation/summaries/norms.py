"""Gradient norms over training in few numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median, stdev

from wtacrs.validation.records.norms import NormPoint, NormsResult


def running_median(values: Sequence[float], width: int) -> list[float]:
    """Median of the values within `width // 2` places of each.

    >>> running_median([1.0, 9.0, 2.0, 3.0], 3)
    [5.0, 2.0, 3.0, 2.5]
    """
    reach = width // 2
    return [median(values[max(i - reach, 0) : i + reach + 1]) for i in range(len(values))]


@dataclass(frozen=True)
class NormsQuarter:
    """Gradient norms over the steps `first` … `last`: medians, and the mean square over what theory expects.

    `relative` and `expected` are medians over ‖G‖ of the step, `squares` the mean over steps of ‖Ĝ‖² over the ‖G‖² + Var
    that theory expects, with its standard error; each None where there is nothing to take it from.
    """

    first: int
    last: int
    used: float
    exact: float
    beside: float | None
    relative: float | None
    expected: float | None
    squares: tuple[float, float] | None


def norms_quarters(result: NormsResult) -> list[NormsQuarter]:
    """The training in quarters, and last the whole of it."""
    count = len(result.estimated)
    parts = min(4, count)
    edges = [round(i * count / parts) for i in range(parts + 1)] if parts else []
    spans = [*pairwise(edges), *([(0, count)] if parts > 1 else [])]
    return [_quarter(result, first, last) for first, last in spans]


def _quarter(result: NormsResult, first: int, last: int) -> NormsQuarter:
    points, beside = result.estimated[first:last], result.exact[first:last]
    moving = [p for p in points if p.exact > 0]
    return NormsQuarter(
        first=first + 1,
        last=last,
        used=median(p.used for p in points),
        exact=median(p.exact for p in points),
        beside=median(p.exact for p in beside) if beside else None,
        relative=_median_or_none([p.used / p.exact for p in moving]),
        expected=_median_or_none([p.expected / p.exact for p in moving if p.expected is not None]),
        squares=_mean_square([p for p in moving if p.expected is not None]),
    )


def _median_or_none(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _mean_square(points: Sequence[NormPoint]) -> tuple[float, float] | None:
    ratios = [(p.used / p.expected) ** 2 for p in points if p.expected]
    return (fmean(ratios), stdev(ratios) / len(ratios) ** 0.5) if len(ratios) > 1 else None
