"""Claims on what a backward pass stores beside X: which roundings leave gradients unbiased, and which do not.

A gradient that is linear in each independently rounded factor is unbiased: dW = dYᵀ X in X, the gradient of act(a) in
act'(a), those of act(a) · b in b · act'(a) and in act(a). What computes something else than a product of what was rounded
(a softmax, a norm) or rounds two factors of a product by one random number is not. Everything here is enumerated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wtacrs.estimators.rounding.element_codes import (
    DerivativeGrid,
    group_variance,
    variance_of_dw_below,
)
from wtacrs.validation.enumeration.element_codes import (
    Rounding,
    group_rounding_of,
    moments_of,
    rounding_of,
)
from wtacrs.validation.records.theory import Claim, Requirement, Series

_STEPS = (1, 2, 3, 5, 7, 10, 15)
_STEP_SIZES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
_EXACT = 1e-20
_CODES = "stochastic_rounding(bits=4)"
_OTHER = "fp8"


def _grid(steps: int) -> DerivativeGrid:
    return DerivativeGrid(bits=8, below=steps, inside=steps, above=steps, tail=1.0 / steps)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _sigmoid_linear(x: Tensor) -> tuple[Tensor, Tensor]:
    """SiLU and its derivative."""
    s = torch.sigmoid(x)
    return x * s, s + x * s * (1.0 - s)


def stored_factors(generator: torch.Generator) -> Claim:
    """One layer with SiLU, a gated product, and a second layer: bias² and variance over all outcomes of their codes."""
    x, weight, dy = _normal(generator, 3, 2), _normal(generator, 2, 2), _normal(generator, 3, 2)
    a, b = x @ weight.T, _normal(generator, 3, 2)
    act, slope = _sigmoid_linear(a)
    below: dict[str, list[float]] = {"listed": [], "formula": [], "bias²": []}
    for steps in _STEPS:
        grid = _grid(steps)
        found = moments_of(lambda q: (dy * q).T @ x, [rounding_of(slope, grid)])
        exact = (dy * slope).T @ x
        unit = float(exact.square().sum())
        below["listed"].append(found.total_variance() / unit)
        below["formula"].append(float(variance_of_dw_below(x, dy, slope, grid)) / unit)
        below["bias²"].append(float((found.mean - exact).square().sum()) / unit)
    gated = [group_rounding_of(b * slope, 4), group_rounding_of(act, 4)]
    both = moments_of(lambda da, db: torch.cat([dy * da, dy * db]), gated)
    exact = torch.cat([dy * b * slope, dy * act])
    unit = float(exact.square().sum())
    formula = (dy.square() * (group_variance(b * slope, 4) + group_variance(act, 4))).sum()
    level = {
        "gated product: bias²": float((both.mean - exact).square().sum()) / unit,
        "gated product: variance": both.total_variance() / unit,
    }
    places = [float(steps) for steps in _STEPS]
    claimed = float(formula) / unit
    return Claim(
        name="stored-factors",
        title="What enters a backward pass as a factor may be rounded without bias",
        statement="A linear layer below SiLU: dW = (dY ∘ q)ᵀ X with q an unbiased code of SiLU'. A product SiLU(a) · b: "
        "codes of b · SiLU'(a) and of SiLU(a), in four bits. bias² over all outcomes is rounding, and the variance is "
        "Σ ‖x‖² dY² (v − lo)(hi − v).",
        status="true",
        source="E q = v and linearity; (v − lo)(hi − v) is the variance of the law on two points with mean v",
        method="enumeration",
        x_name="levels per unit of the derivative",
        y_name="relative to ‖exact‖²",
        series=[
            Series(label="dW below: variance, listed", estimator=_CODES, x=places, y=below["listed"]),
            Series(label="dW below: variance, formula", x=places, y=below["formula"]),
            Series(label="dW below: bias²", estimator=_CODES, x=places, y=below["bias²"]),
            *(Series(label=label, estimator=_OTHER, x=places, y=[y] * len(places)) for label, y in level.items()),
        ],
        requirements=[
            *(Requirement(text=f"no bias beyond rounding: {label}", smaller=f"{label}: bias²", larger=_EXACT)
              for label in ("dW below", "gated product")),
            Requirement(text="listed variance not above the formula", smaller="dW below: variance, listed",
                        larger="dW below: variance, formula", slack=1e-12),
            Requirement(text="listed variance not below the formula", smaller="dW below: variance, formula",
                        larger="dW below: variance, listed", slack=1e-12),
            Requirement(text="gated: listed variance not above the formula", smaller="gated product: variance",
                        larger=claimed, slack=1e-12),
            Requirement(text="gated: listed variance not below the formula", smaller=claimed,
                        larger="gated product: variance", slack=1e-12),
            Requirement(text="there is something to see", smaller=1e-5, larger="gated product: variance"),
        ],
    )  # fmt: skip


def independent_codes(generator: torch.Generator) -> Claim:
    """Two layers of SiLU whose codes are drawn by numbers of their own, or by the same ones."""
    a, weight, dy = _normal(generator, 1, 3), _normal(generator, 3, 3), _normal(generator, 1, 3)
    first, slope = _sigmoid_linear(a)
    _, outer = _sigmoid_linear(first @ weight.T)
    exact = ((dy * outer) @ weight) * slope
    unit = float(exact.square().sum())
    found: dict[str, list[float]] = {"own": [], "own variance": [], "same": []}
    for steps in _STEPS:
        roundings = [rounding_of(outer, _grid(steps)), rounding_of(slope, _grid(steps))]
        for label, shared in (("own", False), ("same", True)):
            moments = moments_of(lambda q, r: ((dy * q) @ weight) * r, roundings, shared=shared)
            found[label].append(float((moments.mean - exact).square().sum()) / unit)
            if not shared:
                found["own variance"].append(moments.total_variance() / unit)
    places = [float(steps) for steps in _STEPS]
    return Claim(
        name="independent-codes",
        title="Layers may draw their codes by the same random numbers",
        statement="The gradient below two layers of SiLU is a product of both codes. Drawn independently its mean is the "
        "product of the means: bias² is rounding. Drawn by one number per element (a generator seeded alike in "
        "both layers) it has the covariance of the two codes as its bias.",
        status="looks true",
        source="E qr = E q E r + Cov(q, r)",
        method="enumeration",
        x_name="levels per unit of the derivative",
        y_name="relative to ‖exact‖²",
        series=[
            Series(label="numbers of their own: variance", estimator=_OTHER, x=places, y=found["own variance"]),
            Series(label="numbers of their own: bias²", estimator=_OTHER, x=places, y=found["own"]),
            Series(label="the same numbers: bias²", estimator=_CODES, x=places, y=found["same"]),
        ],
        requirements=[
            Requirement(text="no bias by numbers of their own", smaller="numbers of their own: bias²", larger=_EXACT),
            Requirement(text="bias by the same numbers", smaller=1e-6, larger="the same numbers: bias²",
                        where="some point"),
            Requirement(text="far above rounding at one level", smaller=1e-12, larger="the same numbers: bias²",
                        where="first point"),
            Requirement(text="there is something to see", smaller=1e-6, larger="numbers of their own: variance"),
        ],
    )  # fmt: skip


def rounded_scores(generator: torch.Generator) -> Claim:
    """A softmax of one row of four scores, made again of rounded ones; its probabilities rounded in the place of them."""
    scores, dp, dout = (_normal(generator, *s) for s in ((1, 4), (1, 4), (1, 2)))

    def of_scores(rounded: Tensor) -> Tensor:
        p = torch.softmax(rounded, 1)
        return p * (dp - (p * dp).sum(1, keepdim=True))

    def of_probabilities(rounded: Tensor) -> Tensor:
        return rounded.T @ dout

    probabilities = torch.softmax(scores, 1)
    return _rounded_input(
        name="rounded-scores",
        title="A softmax may be made again of scores that were rounded without bias",
        statement="The gradient through a softmax is no linear function of its scores: the mean over their rounding "
        "is not its value at the mean. The gradient of the values, Pᵀ dO, is linear in P, which may be rounded. "
        "So the scores, or queries and keys, have to be kept as they are.",
        biased=("softmax of rounded scores", of_scores, scores),
        unbiased=("dV of rounded probabilities", of_probabilities, probabilities),
        at_largest=1e-4,
    )


def rounded_norm(generator: torch.Generator) -> Claim:
    """An RMS norm of one row of four numbers, made again of rounded ones, and the layer that reads its output."""
    x, dy, dout = _normal(generator, 1, 4), _normal(generator, 1, 4), _normal(generator, 1, 2)

    def of_input(rounded: Tensor) -> Tensor:
        scale = (rounded.square().mean(1, keepdim=True) + 1e-2).rsqrt()
        normed = rounded * scale
        return scale * (dy - normed * (dy * normed).mean(1, keepdim=True))

    normed = x * (x.square().mean(1, keepdim=True) + 1e-2).rsqrt()
    return _rounded_input(
        name="rounded-norm",
        title="A norm may be made again of an input that was rounded without bias",
        statement="Neither the scale of a row nor the gradient through a norm is linear in the row. The gradient "
        "of the weight of the layer that reads the output, dYᵀ X, is linear in X, which may be rounded after "
        "the norm, or sampled.",
        biased=("norm of a rounded input", of_input, x),
        unbiased=("dW of a rounded output", lambda rounded: dout.T @ rounded, normed),
        at_largest=1e-4,
    )


Rounded = tuple[str, Callable[[Tensor], Tensor], Tensor]


def _rounded_input(
    *, name: str, title: str, statement: str, biased: Rounded, unbiased: Rounded, at_largest: float
) -> Claim:
    """A function of what was rounded to multiples of a step, whose mean is not its value, beside a linear one."""
    series = []
    for label, function, values in (biased, unbiased):
        exact = function(values)
        unit = float(exact.square().sum())
        biases = []
        for step in _STEP_SIZES:
            mean = moments_of(function, [_to_multiples(values, step)]).mean
            biases.append(float((mean - exact).square().sum()) / unit)
        look = _CODES if label == biased[0] else _OTHER
        series.append(Series(label=f"{label}: bias²", estimator=look, x=list(_STEP_SIZES), y=biases))
    return Claim(
        name=name,
        title=title,
        statement=statement,
        status="looks true",
        source="Jensen: E f(q) is f(E q) for linear f alone",
        method="enumeration",
        x_name="step of the rounding",
        y_name="bias² / ‖exact‖²",
        series=series,
        requirements=[
            Requirement(
                text="biased at some step", smaller=at_largest, larger=series[0].label, where="some point"
            ),
            Requirement(text="biased at every step, beyond rounding", smaller=1e-16, larger=series[0].label),
            Requirement(text="no bias beyond rounding where it is linear", smaller=series[1].label, larger=_EXACT),
        ],
    )


def _to_multiples(values: Tensor, step: float) -> Rounding:
    lower = (values / step).floor() * step
    return Rounding(lower, lower + step, (values - lower) / step)
