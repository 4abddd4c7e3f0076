"""Effects and interactions in crossed factors, seed by seed.

A seed is a block: all runs of a seed share their examples, their order and their dropout. A contrast (a sum of cells with
weights that add up to zero) is computed for every seed by itself, so that what a seed does to all cells cancels, and
Student's t over the seeds gives its interval (Scheffé, "The Analysis of Variance", Wiley 1959, chapter 4). The variance
is estimated from all cells together where that is asked for. Every contrast compares levels of the first factor within
combinations of the others, so that a seed is a block in each combination: what it does to an optimizer, say, cancels too.
Residuals of levels × seeds without interaction, combination by combination, give σ², and a contrast with weights c has
the variance σ² Σ c² / n on combinations × (levels − 1)(n − 1) degrees of freedom (split plots: Cochran and Cox,
"Experimental Designs", Wiley 1957, chapter 7).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from wtacrs.estimators import InputError
from wtacrs.validation.records.factorial import CellMean, Contrast, ContrastVerdict
from wtacrs.validation.statistics.equivalence import PooledStd, check_margin, judge_mean, pooled_std
from wtacrs.validation.statistics.one_sample import holm

Cell = tuple[str, ...]
"""A level of every factor, in the order of the factors."""


class _Weights(NamedTuple):
    """A contrast before it is estimated: weights of cells."""

    treatment: str
    factor: str | None
    at: str | None
    interaction: bool
    weights: dict[Cell, float]


def cells_of(factors: Mapping[str, Sequence[str]]) -> list[Cell]:
    """All combinations of levels, the last factor fastest.

    >>> cells_of({"rate": ["low", "high"], "decay": ["0", "0.1"]})[:3]
    [('low', '0'), ('low', '0.1'), ('high', '0')]
    """
    return list(itertools.product(*factors.values()))


def cell_means(factors: Mapping[str, Sequence[str]], values: Mapping[Cell, Sequence[float]]) -> list[CellMean]:
    """Mean and standard error of every cell over its seeds."""
    return [
        CellMean(
            levels=dict(zip(factors, cell, strict=True)),
            mean=fmean(values[cell]),
            error=stdev(values[cell]) / math.sqrt(len(values[cell])) if len(values[cell]) > 1 else None,
        )
        for cell in cells_of(factors)
    ]


def contrasts(
    factors: Mapping[str, Sequence[str]],
    values: Mapping[Cell, Sequence[float]],
    *,
    margin: float,
    level: float = 0.05,
    pooled: bool = True,
) -> list[Contrast]:
    """Effects of the first factor's levels beside its first, overall and at every level of every other factor.

    Args:
        factors: levels of every factor, at least two of the first.
        values: metric by cell and seed, in the order of the seeds, as many for all cells.
        margin: > 0; an effect smaller than this is of no consequence.
        level: of each one-sided test, in (0, ½).
        pooled: estimate the variance from all cells together, else from each contrast alone.

    Raises:
        InputError: on cells of different numbers of seeds, or fewer than two; on an unusable margin or level.
    """
    cells = cells_of(factors)
    counts = {len(values[cell]) for cell in cells}
    if len(counts) != 1 or min(counts) < 2:
        raise InputError(
            f"values must hold at least two seeds for every cell, as many for all, got {sorted(counts)}"
        )
    check_margin(margin, level)
    table = np.array([values[cell] for cell in cells], dtype=np.float64)
    place = {cell: i for i, cell in enumerate(cells)}
    effects = _effects(factors, cells)
    std = _pooled_within(values, cells) if pooled else None
    found: list[Contrast] = []
    for one in (*effects, *_interactions(factors, effects)):
        weights = np.zeros(len(cells))
        for cell, weight in one.weights.items():
            weights[place[cell]] = weight
        by_seed = weights @ table
        count = len(by_seed)
        if std is not None:  # that of a difference of two cells, whose weights' squares add up to 2
            error = std.deviation * math.sqrt(float(np.square(weights).sum()) / 2 / count)
            degrees = std.freedom
        else:
            error, degrees = float(by_seed.std(ddof=1)) / math.sqrt(count), count - 1
        found.append(_judged(one, float(by_seed.mean()), error, degrees, margin, level))
    return _adjusted(found, level)


def _pooled_within(values: Mapping[Cell, Sequence[float]], cells: Sequence[Cell]) -> PooledStd:
    """Of a difference between two levels of the first factor, from every combination of the others."""
    combinations: dict[Cell, list[Sequence[float]]] = {}
    for cell in cells:
        combinations.setdefault(cell[1:], []).append(values[cell])
    parts = [pooled_std(found) for found in combinations.values()]
    freedom = sum(part.freedom for part in parts)
    return PooledStd(math.sqrt(sum(part.freedom * part.deviation**2 for part in parts) / freedom), freedom)


def _effects(factors: Mapping[str, Sequence[str]], cells: Sequence[Cell]) -> list[_Weights]:
    names = list(factors)
    control, *treatments = factors[names[0]]
    found = []
    for treatment in treatments:
        found.append(_Weights(treatment, None, None, False, _difference(treatment, control, cells)))
        for number, name in enumerate(names[1:], start=1):
            for at in factors[name]:
                here = [cell for cell in cells if cell[number] == at]
                found.append(_Weights(treatment, name, at, False, _difference(treatment, control, here)))
    return found


def _interactions(factors: Mapping[str, Sequence[str]], effects: Sequence[_Weights]) -> list[_Weights]:
    """Every effect at a level of a factor, minus that at the factor's first level."""
    found = []
    base: dict[Cell, float] = {}
    for effect in effects:
        if effect.factor is None:
            continue
        if effect.at == factors[effect.factor][0]:
            base = effect.weights
            continue
        opposite = {cell: -weight for cell, weight in base.items()}  # of other cells than the effect's own
        found.append(effect._replace(interaction=True, weights=opposite | effect.weights))
    return found


def _difference(treatment: str, control: str, among: Sequence[Cell]) -> dict[Cell, float]:
    treated = [cell for cell in among if cell[0] == treatment]
    share = 1.0 / len(treated)
    return dict.fromkeys(treated, share) | {(control, *cell[1:]): -share for cell in treated}


def _judged(one: _Weights, mean: float, error: float, freedom: int, margin: float, level: float) -> Contrast:
    found = judge_mean(mean, error, freedom, margin=margin, level=level)
    return Contrast(
        kind="interaction" if one.interaction else "effect",
        treatment=one.treatment,
        factor=one.factor,
        at=one.at,
        difference=mean,
        error=error,
        low=found.low,
        high=found.high,
        different=found.different,
        within=found.within,
        verdict="undecided",
    )


def _adjusted(found: list[Contrast], level: float) -> list[Contrast]:
    """Holm within each kind, for both questions apart; what is within the margin is not said to differ."""
    adjusted: dict[int, Contrast] = {}
    for kind in dict.fromkeys(one.kind for one in found):
        places = [i for i, one in enumerate(found) if one.kind == kind]
        different = holm(np.array([found[i].different for i in places])).tolist()
        within = holm(np.array([found[i].within for i in places])).tolist()
        for i, d, w in zip(places, different, within, strict=True):
            verdict: ContrastVerdict = "undecided"
            if w <= level:
                verdict = "within the margin"
            elif d <= level:
                verdict = "differs"
            adjusted[i] = found[i].model_copy(update={"different": d, "within": w, "verdict": verdict})
    return [adjusted[i] for i in range(len(found))]
