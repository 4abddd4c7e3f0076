"""Tests of estimators on captured layers at their real size: of the mean, of the variance, and against a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wtacrs.estimators import Estimator, InputError, joint_norms, spec
from wtacrs.validation.enumeration.exact_moments import ExactMoments, can_enumerate, enumerate_moments
from wtacrs.validation.layers.captures import load_captures, on_device
from wtacrs.validation.layers.compare import ZeroProduct, exact_product
from wtacrs.validation.layers.scores import layer_scores, stream_name
from wtacrs.validation.properties.external_estimators import ExternalEstimator
from wtacrs.validation.records.base import ScoreKind
from wtacrs.validation.records.layer_tests import (
    BIAS,
    POWER,
    BiasFinding,
    BiasVerdict,
    LayerTest,
    RatioFinding,
    VarianceFinding,
    unseen,
)
from wtacrs.validation.runner import TaskOutput, generator_for
from wtacrs.validation.statistics.one_sample import check_sample, holm
from wtacrs.validation.statistics.significance import rounding_error, rounding_variance, variance_verdict
from wtacrs.validation.statistics.staged_means import Demand
from wtacrs.validation.statistics.staged_splits import staged_split_test
from wtacrs.validation.statistics.variance_ratio import (
    LEAST_DRAWS,
    Quantity,
    VarianceRatio,
    compare_variances,
    exact_ratio,
    known_moment,
    paired_ratio,
)

# beyond so many rows or outcomes a layer is sampled: listing would take longer
_ENUMERATED_ROWS, _OUTCOMES = 12, 500
# rounding of moments over outcomes, relative to Σw or to E‖Ĝ‖²
_EXACT = 1e-10
LIMIT = 60.0
"""Seconds for the test of one mean, unless others are asked for."""


def examine_entry(
    path: Path,
    entry: str,
    estimator: Estimator,
    against: Estimator | None,
    scores: ScoreKind,
    draws: int,
    level: float,
    seed: int,
    quantity: Quantity = "variance",
    device: str = "cpu",
    bias: float = BIAS,
    power: float = POWER,
    limit: float = LIMIT,
    family: int = 1,
) -> TaskOutput[LayerTest]:
    """`examine_layer` on one entry of a captured file, with a stream of its own: one piece of a study.

    A layer whose exact product is zero is skipped.

    Args:
        path: of the captured file.
        entry: as in `Captures`.
        estimator: the one examined.
        against: the baseline, None for no comparison.
        scores: kind of scores.
        draws: as in `examine_layer`.
        level: as in `examine_layer`.
        seed: of the whole study.
        quantity: as in `examine_layer`.
        device: where the products are computed.
        bias: as in `examine_layer`, like the three that follow.
        power: as above.
        limit: as above.
        family: as above.

    Raises:
        InputError: on an unusable argument, or where external code raises.
    """
    layer = on_device(load_captures(path)[entry], device)
    try:
        found = examine_layer(
            entry,
            layer.x,
            layer.dy,
            estimator,
            against,
            mask=layer.mask,
            stale=layer.stale,
            scores=scores,
            draws=draws,
            level=level,
            generator=generator_for(seed, f"{entry} {spec(estimator)} {stream_name(scores)}", layer.x.device),
            quantity=quantity,
            bias=bias,
            power=power,
            limit=limit,
            family=family,
        )
    except ZeroProduct as reason:
        return TaskOutput(skipped=str(reason))
    except Exception as error:
        if isinstance(error, InputError) or not isinstance(estimator, ExternalEstimator):
            raise
        raise InputError(f"{estimator!r} on {entry}: it raises {type(error).__name__}: {error}") from error
    return TaskOutput((found,))


@torch.no_grad()
def examine_layer(
    name: str,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    estimator: Estimator,
    against: Estimator | None = None,
    *,
    mask: Bool[Tensor, " n"] | None = None,
    stale: Float[Tensor, " n"] | None = None,
    scores: ScoreKind = "row-norms",
    draws: int,
    level: float,
    generator: torch.Generator | None = None,
    quantity: Quantity = "variance",
    bias: float = BIAS,
    power: float = POWER,
    limit: float = LIMIT,
    family: int = 1,
) -> LayerTest:
    """Test the mean and, where there is a closed form, the variance; compare the variance with a baseline's.

    The mean is tested in stages, until it is rejected or a bias of the size asked for along the exact product is ruled
    out (`staged_split_test`); what is neither in the end is undecided. The draws of the first stage, whose number is
    fixed, serve the variance and the comparison too (Holm's correction holds under any dependence). Where the estimator
    is deterministic, or the layer so small that all outcomes can be listed, they are, in fp64, and the answer is exact.

    Verdicts on mean and variance are at `level / family`: Bonferroni's share, at which Holm's correction over `family`
    tests rejects at the latest. So the power stated is that of the corrected verdict, which `adjusted_for_families`
    gives; the verdict on the ratio, and its interval, are of that comparison by itself.

    Args:
        name: of the layer.
        x: input rows.
        dy: output gradients.
        estimator: the one examined.
        against: baseline of the comparison.
        mask: False at padding rows, which get score 0.
        stale: row norms of dY at an earlier state, for the scores "stale".
        scores: kind of scores, for both estimators.
        draws: number of draws ≥ 6 of the first stage, fixed beforehand.
        level: probability in (0, 1) of rejecting any true claim of a kind in the family.
        generator: source of the draws.
        quantity: what the comparison is of, "variance" or "mse" (about the exact product).
        bias: to be ruled out along the exact product, as a share of its norm.
        power: with which a bias of that size would be seen.
        limit: seconds for the test of the mean; the first stage is drawn whatever it takes.
        family: number of layers and estimators that share the level.

    Raises:
        ZeroProduct: if the exact product is zero.
        InputError: on an unusable argument.
    """
    asked = demand_of(draws, level, bias, power, limit, family)
    exact = exact_product(name, x, dy)
    layer = _Layer(x, dy, layer_scores(scores, x, dy, mask, stale, layer=name), exact, float(exact.norm()))
    listed = _all_outcomes(estimator, layer)
    sampled = listed is None
    seen = (
        _listing(estimator, layer, listed, asked) if listed else _sample(estimator, layer, draws, asked, generator)
    )
    ratio = None
    if against is not None and against != estimator:
        found = _compare(estimator, against, layer, seen, quantity, draws, level, generator)
        ratio = None if found is None else _ratio_finding(found, spec(against))
    return LayerTest(
        layer=name,
        estimator=spec(estimator),
        unbiased=estimator.traits.unbiased,
        scores=scores,
        n=x.shape[0],
        d=x.shape[1],
        m=dy.shape[1],
        draws=draws << (seen.bias.looks - 1) if sampled else 0,
        first_draws=draws if sampled else 0,
        bias=seen.bias,
        variance=seen.variance,
        ratio=ratio,
    )


def demand_of(draws: int, level: float, bias: float, power: float, limit: float, family: int = 1) -> Demand:
    """What one test of a mean is asked for; arguments as in `examine_layer`.

    Raises:
        InputError: on an unusable argument.
    """
    check_sample(draws, level, LEAST_DRAWS)
    if isinstance(family, bool) or not isinstance(family, int) or family < 1:
        raise InputError(f"family={family!r} must be an integer ≥ 1")
    return Demand(level=level / family, bias=bias, power=power, limit=limit)


class _Layer(NamedTuple):
    x: Tensor
    dy: Tensor
    scores: Tensor
    exact: Tensor
    unit: float


class _Seen(NamedTuple):
    """Findings about one estimator, and i.i.d. numbers whose mean is its variance or its mean squared error."""

    bias: BiasFinding
    variance: VarianceFinding | None
    samples: dict[Quantity, list[float]]


def _all_outcomes(estimator: Estimator, layer: _Layer) -> ExactMoments | None:
    """Exact moments where the outcomes are few, else None."""
    small = layer.x.shape[0] <= _ENUMERATED_ROWS and can_enumerate(estimator) is None
    if not (small or estimator.traits.deterministic):
        return None
    try:
        return enumerate_moments(
            estimator, layer.x.double(), layer.dy.double(), scores=layer.scores, limit=_OUTCOMES
        )
    except InputError:  # more outcomes than the limit
        return None


def _listing(estimator: Estimator, layer: _Layer, listed: ExactMoments, asked: Demand) -> _Seen:
    error = listed.mean - layer.exact
    rounding = _EXACT * float(joint_norms(layer.x, layer.dy).sum()) / layer.unit
    size = float(error.norm()) / layer.unit
    bias = BiasFinding(
        method="enumeration",
        bias_squared=size**2,
        along=float((error * layer.exact).sum()) / layer.unit**2,
        rounding=rounding,
        asked=asked.bias,
        power=asked.power,
        verdict=_bias_verdict(size > rounding, estimator.traits.unbiased, None, asked.bias),
    )
    stated = known_moment(estimator, layer.x.double(), layer.dy.double(), scores=layer.scores)
    variance = None
    if stated is not None:
        scale = listed.variance + float(listed.mean.square().sum())
        variance = VarianceFinding(
            method="enumeration",
            measured=listed.variance / layer.unit**2,
            stated=stated / layer.unit**2,
            verdict="rejected" if abs(listed.variance - stated) > _EXACT * scale else "accepted",
        )
    return _Seen(bias, variance, {})


def _sample(
    estimator: Estimator, layer: _Layer, draws: int, asked: Demand, generator: torch.Generator | None
) -> _Seen:
    def draw() -> Tensor:
        saved = estimator.compress(layer.x, scores=layer.scores, generator=generator)
        return estimator.contract(saved, layer.dy).double()

    rounding = rounding_error(layer.x, layer.dy)
    found = staged_split_test(draw, layer.exact, asked, draws, rounding=rounding)
    mean = found.test
    bias = BiasFinding(
        method="sampling",
        bias_squared=mean.bias_squared,
        bias_squared_error=mean.bias_squared_error,
        along=mean.along,
        along_error=mean.along_error,
        rounding=rounding / layer.unit,
        detectable=mean.detectable,
        detectable_along=mean.detectable_along,
        p_value=mean.p_value,
        asked=asked.bias,
        power=asked.power,
        looks=found.looks,
        verdict=_bias_verdict(mean.rejected, estimator.traits.unbiased, mean.detectable_along, asked.bias),
    )
    variance = _variance(estimator, layer, found.pair_squares, asked.level)
    return _Seen(bias, variance, {"variance": found.pair_squares, "mse": found.squares})


def _variance(estimator: Estimator, layer: _Layer, squares: list[float], level: float) -> VarianceFinding | None:
    stated = known_moment(estimator, layer.x, layer.dy, scores=layer.scores)
    if stated is None:
        return None
    found = variance_verdict(
        squares, stated, level, rounding=rounding_variance(layer.x, layer.dy), unit=layer.unit**2
    )
    return VarianceFinding(
        method="sampling",
        measured=found.measured,
        error=found.error,
        stated=found.stated,
        detectable=found.detectable,
        p_value=found.p_value,
        verdict="rejected" if found.rejected else "accepted",
    )


def _compare(
    estimator: Estimator,
    against: Estimator,
    layer: _Layer,
    seen: _Seen,
    quantity: Quantity,
    draws: int,
    level: float,
    generator: torch.Generator | None,
) -> VarianceRatio | None:
    """A over B, exactly or from the draws at hand as far as that goes; None if both are zero."""
    own, other = (_exact_moment(each, layer, quantity) for each in (estimator, against))
    if own == 0.0 and other == 0.0:
        return None
    if own is not None and other is not None:
        return exact_ratio(own, other, level, quantity)
    if other is not None:
        return paired_ratio(seen.samples[quantity], [other], level, draws=draws, quantity=quantity)
    return compare_variances(
        estimator,
        against,
        layer.x,
        layer.dy,
        draws=draws,
        level=level,
        quantity=quantity,
        scores=layer.scores,
        generator=generator,
    )


def _exact_moment(estimator: Estimator, layer: _Layer, quantity: Quantity) -> float | None:
    """By closed form, else by listing the outcomes, else None."""
    known = known_moment(estimator, layer.x, layer.dy, quantity, layer.scores)
    if known is not None:
        return known
    listed = _all_outcomes(estimator, layer)
    if listed is None or quantity == "variance":
        return None if listed is None else listed.variance
    return listed.variance + float((listed.mean - layer.exact).square().sum())


def _ratio_finding(found: VarianceRatio, against: str) -> RatioFinding:
    differs = found.p_value <= found.level
    return RatioFinding(
        against=against,
        quantity=found.quantity,
        ratio=found.ratio,
        low=found.low,
        high=found.high,
        method=found.method,
        p_value=None if found.method == "closed form" else found.p_value,
        verdict=_ratio_verdict(differs, found.ratio),
    )


def adjusted_for_families(tests: Sequence[LayerTest], level: float) -> list[LayerTest]:
    """The same tests with Holm's p-values and verdicts, one family each for biases, variances and ratios.

    Where all claims are true, each family rejects any with probability at most `level`: the p-value of a mean is one of
    all its looks together, so that Holm's correction over layers and estimators takes it as it is. Exact answers stay as
    they are. What is not rejected holds or is undecided by the bias asked for.
    """
    biases = _adjusted([test.bias for test in tests])
    variances = _adjusted([test.variance for test in tests])
    ratios = _adjusted([test.ratio for test in tests])
    found = []
    for test, bias, variance, ratio in zip(tests, biases, variances, ratios, strict=True):
        if bias is not None and bias.adjusted is not None:
            verdict = _bias_verdict(bias.adjusted <= level, test.unbiased, bias.detectable_along, bias.asked)
            bias = bias.model_copy(update={"verdict": verdict})
        if variance is not None and variance.adjusted is not None:
            stands = "rejected" if variance.adjusted <= level else "accepted"
            variance = variance.model_copy(update={"verdict": stands})
        if ratio is not None and ratio.adjusted is not None:
            ratio = ratio.model_copy(update={"verdict": _ratio_verdict(ratio.adjusted <= level, ratio.ratio)})
        found.append(test.model_copy(update={"bias": bias, "variance": variance, "ratio": ratio}))
    return found


FindingT = TypeVar("FindingT", BiasFinding, VarianceFinding, RatioFinding)


def _adjusted(findings: Sequence[FindingT | None]) -> list[FindingT | None]:
    family = [f.p_value for f in findings if f is not None and f.p_value is not None]
    adjusted = iter(holm(np.array(family)).tolist())
    return [
        f if f is None or f.p_value is None else f.model_copy(update={"adjusted": next(adjusted)})
        for f in findings
    ]


def _bias_verdict(seen: bool, claims: bool, reach: float | None, asked: float) -> BiasVerdict:
    """Whether the claim of no bias, if it is made, holds; `reach` is `detectable_along`, None where all is exact."""
    if seen:
        return "broken" if claims else "biased, as declared"
    return unseen(reach, asked)


def _ratio_verdict(differs: bool, ratio: float) -> Literal["lower", "higher", "no difference"]:
    if not differs:
        return "no difference"
    return "lower" if ratio < 1 else "higher"
