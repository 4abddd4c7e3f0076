"""What the captured layers of one model show, all together: how far they can be sampled, and what that adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import NamedTuple

from wtacrs.estimators import InputError, make, spec
from wtacrs.validation.layers.captures import LayerCapture
from wtacrs.validation.layers.compressibility import Compressibility, compressibility
from wtacrs.validation.layers.noise import NoNoise, layer_entries, layer_noise
from wtacrs.validation.records.growth import SampledNoise
from wtacrs.validation.records.noise import LayerNoise


class ModelMeasures(NamedTuple):
    """As the fields of the same name in `GrowthPoint`."""

    rows: int
    effective: float
    tail: float
    coherence: float
    rows_needed: float
    minibatch: float
    noise: list[SampledNoise]


def model_measures(
    captures: Mapping[str, LayerCapture], specs: Sequence[str], *, draws: int = 64, seed: int = 0
) -> ModelMeasures:
    """Medians over layers of what the pairs say, and sums over layers of what the estimators add; oracle scores.

    A layer whose gradient is the same in all batches is left out.

    Args:
        captures: entries `layer#batch` of at least two batches.
        specs: of estimators, with their sizes; results name them as they are written here.
        draws: of estimators without a closed form, ≥ 3.
        seed: of the draws.

    Raises:
        InputError: if no layer has a gradient that differs between batches, or as `layer_noise`.
    """
    estimators = [make(one) for one in specs]
    pairs: list[list[Compressibility]] = []
    noise: dict[str, list[LayerNoise]] = {}
    for layer, batches in layer_entries(captures).items():
        groups = list(batches.values())
        try:
            found = layer_noise(layer, captures, groups, estimators, scores=("oracle",), draws=draws, seed=seed)
        except NoNoise:
            continue
        for row in found:
            noise.setdefault(row.estimator, []).append(row)
        # in fp64, since the rows of one layer may span more than the range of fp32's squares
        pairs.append(
            [compressibility(captures[e].x.double(), captures[e].dy.double()) for group in groups for e in group]
        )
    if not pairs:
        raise InputError("captures: no layer has a gradient that differs between batches")

    def middle(part: Callable[[Compressibility], float]) -> float:
        return median(fmean(map(part, found)) for found in pairs)

    first = next(iter(noise.values()))
    return ModelMeasures(
        rows=max(found.n for layer in pairs for found in layer),
        effective=middle(lambda c: c.effective),
        tail=middle(lambda c: c.tail),
        coherence=middle(lambda c: c.coherence),
        rows_needed=middle(lambda c: c.rows_needed),
        minibatch=_between(first) / _size(first),
        noise=[_noise(name, noise[spec(one)]) for name, one in zip(specs, estimators, strict=True)],
    )


def _noise(name: str, rows: Sequence[LayerNoise]) -> SampledNoise:
    """Squared error over ‖G‖² and over the minibatch variance: sums over layers of means over batches."""
    error = sum(fmean(row.variances) + fmean(row.biases_squared) for row in rows)
    return SampledNoise(estimator=name, relative=error / _size(rows), ratio=error / _between(rows))


def _size(rows: Sequence[LayerNoise]) -> float:
    return sum(fmean(row.sizes or ()) for row in rows)


def _between(rows: Sequence[LayerNoise]) -> float:
    return sum(sum(row.deviations) / (len(row.deviations) - 1) for row in rows)
