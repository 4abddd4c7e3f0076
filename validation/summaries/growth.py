"""Trends of what models of many sizes show: by width and depth at equal steps and loss, by rows and by progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from wtacrs.validation.records.growth import Axis, Condition, GrowthPoint, GrowthTrend
from wtacrs.validation.statistics.one_sample import holm
from wtacrs.validation.statistics.trend import Trend, trend

_Place = Callable[[GrowthPoint], float]


class _Observed(NamedTuple):
    """Where a model stands on an axis, the block that it is compared in, and its quantities."""

    place: float
    block: Hashable
    quantities: dict[str, float]


def growth_trends(
    points: Sequence[GrowthPoint], *, base_width: int, base_depth: int, level: float = 0.05
) -> list[GrowthTrend]:
    """Every trend that the points can show, family by family; a seed is a block.

    At equal loss a model's quantities are interpolated between its times, in the loss and in their logarithms, at the
    highest final loss of the models that it is compared with: the others have been there.

    Args:
        points: whole batches (part 1) and parts of them.
        base_width: of the models whose depth grows.
        base_depth: of the models whose width grows.
        level: of the tests.
    """
    found: list[GrowthTrend] = []
    for family in dict.fromkeys(point.family for point in points):
        ours = [point for point in points if point.family == family]
        whole = [point for point in ours if point.part == 1]
        parts = [point for point in ours if point.part < 1]
        axes: tuple[tuple[Axis, Callable[[GrowthPoint], bool], _Place], ...] = (
            ("width", lambda p: p.depth == base_depth, lambda p: math.log2(p.width)),
            ("depth", lambda p: p.width == base_width, lambda p: math.log2(p.depth)),
        )
        for axis, belongs, place in axes:
            here = [point for point in whole if belongs(point)]
            smaller = [point for point in parts if belongs(point)]
            compared: tuple[tuple[Condition, list[_Observed]], ...] = (
                ("equal steps", _at_the_end(here, place)),
                ("equal loss", _at_equal_loss(here, place)),
                ("equal steps, a quarter of the rows", _at_the_end(smaller, place)),
            )
            for condition, observed in compared:
                found += _trends(observed, family, axis, condition, level)
        found += _trends(_by_rows(ours), family, "rows", "all models", level)
        found += _trends(_by_progress(whole), family, "progress", "all models", level)
    return found


def _model(point: GrowthPoint) -> tuple[int, int, int]:
    return point.width, point.depth, point.seed


def _histories(points: Iterable[GrowthPoint]) -> dict[tuple[int, int, int], list[GrowthPoint]]:
    found: dict[tuple[int, int, int], list[GrowthPoint]] = {}
    for point in sorted(points, key=lambda p: p.step):
        found.setdefault(_model(point), []).append(point)
    return found


def _at_the_end(points: Sequence[GrowthPoint], place: _Place) -> list[_Observed]:
    last = [history[-1] for history in _histories(points).values()]
    return [_Observed(place(point), point.seed, point.quantities()) for point in last]


def _at_equal_loss(points: Sequence[GrowthPoint], place: _Place) -> list[_Observed]:
    histories = list(_histories(points).values())
    found = []
    for seed in dict.fromkeys(history[0].seed for history in histories):
        compared = [history for history in histories if history[0].seed == seed]
        loss = max(history[-1].loss for history in compared)
        for history in compared:
            if history[0].loss >= loss:
                found.append(_Observed(place(history[0]), seed, at_loss(history, loss)))
    return found


def at_loss(history: Sequence[GrowthPoint], loss: float) -> dict[str, float]:
    """Quantities of a model when it had a loss, between the two times around it; the loss must lie in its range.

    Args:
        history: its points, by step.
        loss: nats per token.
    """
    ordered = sorted(history, key=lambda p: p.loss)
    losses = [point.loss for point in ordered]
    measured = [point.quantities() for point in ordered]
    return {
        name: math.exp(float(np.interp(loss, losses, [_log(found[name]) for found in measured])))
        for name in measured[0]
    }


def _by_rows(points: Sequence[GrowthPoint]) -> list[_Observed]:
    last = max(point.step for point in points)
    return [
        _Observed(math.log2(point.part), _model(point), point.quantities())
        for point in points
        if point.step == last
    ]


def _by_progress(points: Sequence[GrowthPoint]) -> list[_Observed]:
    return [_Observed(-point.loss, _model(point), point.quantities()) for point in points]


def _log(value: float) -> float:
    return math.log(max(value, 1e-300))


def _trends(
    observed: Sequence[_Observed], family: str, axis: Axis, condition: Condition, level: float
) -> list[GrowthTrend]:
    """The trend of every quantity; none where too few models, or all of one size, were compared."""
    blocks = [one.block for one in observed]
    places = [one.place for one in observed]
    inner = {(place, block) for place, block in zip(places, blocks, strict=True)}
    if len(inner) <= len(set(blocks)) + 1:
        return []
    slopes: dict[str, Trend] = {
        name: trend(places, [_log(one.quantities[name]) for one in observed], blocks, level=1 - level)
        for name in observed[0].quantities
    }
    adjusted = holm(np.array([one.p_value for one in slopes.values()])).tolist()
    return [
        GrowthTrend(
            family=family,  # type: ignore[arg-type]
            axis=axis,
            condition=condition,
            quantity=name,
            factor=math.exp(one.slope),
            low=math.exp(one.low),
            high=math.exp(one.high),
            p_value=p,
            verdict="not seen" if p > level else ("falls" if one.slope < 0 else "rises"),
        )
        for (name, one), p in zip(slopes.items(), adjusted, strict=True)
    ]
