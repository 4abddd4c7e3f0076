"""What an estimator adds to the noise that a minibatch's gradient has anyway, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from wtacrs.validation.records.base import Record, Result, ScoreKind, counted, register_result


class NoiseRatio(Record):
    """A squared error over the minibatch variance, with the ends of its interval; they are None with two batches."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        ends = (
            "" if self.low is None or self.high is None else f" [{in_percent(self.low)}, {in_percent(self.high)}]"
        )
        return f"{in_percent(self.value)}{ends}"


class _Noise(Record):
    """What one estimator with one kind of scores adds.

    `row_fraction` is the budget as a fraction of the rows, None without a budget. `ratio` is that of the whole squared
    error of one microbatch, variance and bias², over the minibatch variance, and `bias_ratio` the part of it that is
    bias²: 0 for an unbiased estimator. Most of that differs between microbatches and averages out with them;
    `persistent_ratio` estimates the part that no number of microbatches averages out, `‖E(EĜ_b − G_b)‖²`, without
    bias, so that it may be negative. `method` says how variances were found; `ratio_error` is the standard error that
    finitely many draws give the variance, in the unit of the ratio, None for closed forms. The interval of `ratio` has it
    in already.
    """

    table_derived: ClassVar[Sequence[str]] = ("mostly_bias",)

    estimator: str
    budget: int | float | None
    row_fraction: float | None
    scores: ScoreKind
    method: Literal["closed form", "monte carlo"]
    ratio: NoiseRatio
    bias_ratio: float
    persistent_ratio: float
    ratio_error: float | None

    @property
    def mostly_bias(self) -> bool:
        """More than half of the squared error of one microbatch is bias²."""
        return 2 * self.bias_ratio > self.ratio.value


class LayerNoise(_Noise):
    """One layer; every list has a number for each batch, in squared units of the gradient.

    `deviations` are ‖G_b − Ḡ‖², whose sum over B − 1 is the minibatch variance; `variances` are the estimator's, summed
    over the layer's calls, with the standard errors `variance_errors` where they were found by `draws` draws;
    `biases_squared` are ‖EĜ_b − G_b‖²; `sizes` are ‖G_b‖², None in files of before they were noted.
    """

    table_series: ClassVar[Mapping[str, Sequence[str]]] = {
        "batches": ("deviations", "variances", "variance_errors", "biases_squared", "sizes")
    }

    layer: str
    deviations: Annotated[Sequence[float], Field(min_length=2)]
    variances: Sequence[float]
    variance_errors: Sequence[float] | None
    biases_squared: Sequence[float]
    sizes: Sequence[float] | None = None
    draws: int | None


class ModelNoise(_Noise):
    """All measured layers together: sums over layers before the division. `worst` is the layer of largest ratio.

    `layers` are sampled; `exact_layers` stay exact in training, and have a part in the minibatch's variance alone.
    `relative` is the whole squared error over the mean of ‖G_b‖², None in files of before it was noted.
    """

    table_derived: ClassVar[Sequence[str]] = ("mostly_bias", "equivalent_batch", "descent_rate", "adam_step")

    layers: int
    exact_layers: int = 0
    batches: int
    worst: str
    worst_ratio: NoiseRatio
    relative: float | None = None

    @property
    def layers_told(self) -> str:
        """How many layers are sampled together, and how many are too small for it."""
        told = "one layer" if self.layers == 1 else f"{self.layers} layers together"
        return told if not self.exact_layers else f"{told}, {self.exact_layers} more exact"

    @property
    def descent_rate(self) -> float | None:
        """The best rate of gradient descent over that with exact gradients, a step per microbatch: 1/(1 + relative).

        To second order, where noise meets the curvature that the gradient meets: the best rate is inverse to E‖Ĝ‖²
        (McCandlish et al., arXiv 1812.06162, section 2.2).
        """
        return None if self.relative is None else 1.0 / (1.0 + max(self.relative, 0.0))

    @property
    def adam_step(self) -> float | None:
        """The part of Adam's step along the gradient, over that with exact gradients: 1/√(1 + relative).

        Adam divides by the root of E‖Ĝ‖², coordinate by coordinate, so that its steps are as long with noise as without.
        Few steps get as far as with exact gradients at a rate that is as much higher.
        """
        return None if self.descent_rate is None else math.sqrt(self.descent_rate)

    @property
    def equivalent_batch(self) -> float:
        """How large a batch, relative to the one in use, has the same variance in exact arithmetic: 1/(1 + ratio)."""
        return 1.0 / (1.0 + max(self.ratio.value, 0.0))

    @property
    def _persists(self) -> str:
        if self.persistent_ratio <= 0.0:
            return f"in {self.batches} microbatches no part of the bias is seen that would not average out"
        part = in_percent(self.persistent_ratio)
        return f"the bias that no number of microbatches averages out is {part} of that noise"

    @property
    def verdict(self) -> str:
        """What it means for training, in one sentence."""
        name = f"{self.estimator}, {self.scores}"
        if self.ratio.value == 0.0:
            return f"{name}: adds nothing to the gradient noise you already have"
        worst = f"worst layer {self.worst}: {self.worst_ratio}"
        if self.bias_ratio > 0.0:
            return (
                f"{name}: its squared error is {self.ratio} of the gradient noise you already have, "
                f"{in_percent(self.bias_ratio)} as bias²; {self._persists}; {worst}"
            )
        size = f"{self.equivalent_batch:.3g}"
        batch = "the batch you have" if size == "1" else f"a batch {size} times as large"
        return f"{name}: adds {self.ratio} to the gradient noise you already have; equivalent to {batch}; {worst}"


@register_result
class NoiseResult(Result):
    """Estimators against the minibatch's own noise; `level` is that of the intervals."""

    kind: Literal["noise"] = "noise"
    level: float
    models: Sequence[ModelNoise]
    layers: Sequence[LayerNoise]

    @property
    def headline(self) -> str:
        """Numbers of layers, estimators and batches."""
        layers, batches = {row.layer for row in self.layers}, max((row.batches for row in self.models), default=0)
        estimators = {row.estimator for row in self.models}
        told = f"{counted(len(layers), 'layer')} × {counted(len(estimators), 'estimator')}"
        return f"{told}, {counted(batches, 'batch', 'batches')}"


def in_percent(ratio: float) -> str:
    """A ratio in percent with two digits, or whole percents where these are more.

    >>> in_percent(0.0361), in_percent(0.04), in_percent(12.345), in_percent(0.000021), in_percent(0.0)
    ('3.6 %', '4 %', '1,234 %', '0.0021 %', '0 %')
    """
    if not math.isfinite(ratio):
        return "∞" if ratio > 0 else str(ratio)
    percent = 100 * ratio
    return f"{percent:,.0f} %" if abs(percent) >= 9.95 or percent == 0 else f"{percent:.2g} %"
