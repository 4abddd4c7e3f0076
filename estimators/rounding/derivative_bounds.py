"""Least and largest value of the derivatives of activations, by calculus: f'' = 0 solved to rounding.

Of `GELU`, its tanh approximation, `SiLU` and `quick GELU` f(x) − f(−x) = x, so that f'(x) + f'(−x) = 1: the extremes are
`hi` and 1 − hi.

>>> low, high = DERIVATIVE_BOUNDS["GELU"]
>>> round(low, 4), round(high, 4), DERIVATIVE_BOUNDS["softplus"]
(-0.1289, 1.1289, (0.0, 1.0))
"""

from __future__ import annotations

import math
from collections.abc import Callable

_HALVINGS = 200


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that changes its sign once between two numbers is 0, by bisection."""
    negative_first = function(low) < 0.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if (function(middle) < 0.0) == negative_first:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _symmetric(high: float) -> tuple[float, float]:
    return 1.0 - high, high


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def _gelu() -> tuple[float, float]:
    """f' = Φ + x φ, f'' = (2 − x²) φ: the largest value is at √2."""
    x = math.sqrt(2.0)
    normal = math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    return _symmetric(0.5 * (1.0 + math.erf(x / math.sqrt(2.0))) + x * normal)


def _gelu_tanh() -> tuple[float, float]:
    """f = x (1 + t)/2 with t = tanh g, g = c (x + a x³): f'' = (1 − t²)(g' + x g''/2 − x t g'²)."""
    c, a = math.sqrt(2.0 / math.pi), 0.044715

    def bend(x: float) -> float:
        t, first, second = math.tanh(c * (x + a * x**3)), c * (1.0 + 3.0 * a * x * x), 6.0 * c * a * x
        return first + 0.5 * x * second - x * t * first * first

    x = _root(bend, 1.0, 2.0)
    t = math.tanh(c * (x + a * x**3))
    return _symmetric(0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * c * (1.0 + 3.0 * a * x * x))


def _silu() -> tuple[float, float]:
    """f' = σ + x σ (1 − σ), f'' = σ (1 − σ)(2 − x tanh(x/2)). `quick GELU`, x σ(c x), has the same values at x/c."""
    x = _root(lambda x: 2.0 - x * math.tanh(0.5 * x), 2.0, 3.0)
    s = _sigmoid(x)
    return _symmetric(s + x * s * (1.0 - s))


def _mish() -> tuple[float, float]:
    """f = x w with w = tanh(log(1 + eˣ)): w' = (1 − w²) σ and f'' = w' (2 + x (1 − σ − 2 w σ))."""

    def parts(x: float) -> tuple[float, float]:
        return math.tanh(math.log1p(math.exp(x))), _sigmoid(x)

    def bend(x: float) -> float:
        w, s = parts(x)
        return 2.0 + x * (1.0 - s - 2.0 * w * s)

    def slope(x: float) -> float:
        w, s = parts(x)
        return w + x * (1.0 - w * w) * s

    return slope(_root(bend, -4.0, -1.0)), slope(_root(bend, 1.0, 3.0))


DERIVATIVE_BOUNDS: dict[str, tuple[float, float]] = {
    "ReLU": (0.0, 1.0),
    "GELU": _gelu(),
    "GELU (tanh)": _gelu_tanh(),
    "SiLU": _silu(),
    "quick GELU": _silu(),
    "Mish": _mish(),
    "softplus": (0.0, 1.0),
    "hardswish": (-0.5, 1.5),
}
"""By name; hardswish is (2x + 3)/6 between −3 and 3, and the derivative of softplus the sigmoid."""
