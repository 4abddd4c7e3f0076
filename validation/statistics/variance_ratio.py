"""Is one estimator's variance below another's, and by how much: a paired test and an interval for the ratio."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from scipy import optimize
from torch import Tensor

from wtacrs.estimators import Estimator, InputError
from wtacrs.estimators.core.checks import check_rows_agree
from wtacrs.validation.statistics.moments import Method, closed_form
from wtacrs.validation.statistics.one_sample import check_sample, one_sample
from wtacrs.validation.statistics.streaming import PairDifferences, inner, numbers

Quantity = Literal["variance", "mse"]
QUANTITIES: tuple[Quantity, ...] = ("variance", "mse")

LEAST_DRAWS = 6
# bounds are found to this relative accuracy, and sought up to about e^64 from the estimate
_ACCURACY, _FARTHEST = 1e-7, 32.0


class VarianceRatio(NamedTuple):
    """The variance (or mean squared error) of A over that of B on one layer.

    Attributes:
        ratio: A's over B's.
        low, high: confidence interval at 1 − level; equal to the ratio where both are known exactly. `high` is infinite
            where the data do not bound it.
        p_value: two-sided, of "the ratio is 1". The interval leaves out 1 exactly when it is ≤ level. Of an exact
            ratio: 1 if it is 1, else 0.
        level: probability of rejecting a ratio of 1, and of an interval that misses the ratio.
        a, b: both variances.
        method: "closed form" if both are known exactly, else "monte carlo".
        draws: of each estimator that has no closed form; 0 if both have one.
        quantity: "variance" or "mse".
    """

    ratio: float
    low: float
    high: float
    p_value: float
    level: float
    a: float
    b: float
    method: Method
    draws: int
    quantity: Quantity


@torch.no_grad()
def compare_variances(
    a: Estimator,
    b: Estimator,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    *,
    draws: int,
    level: float,
    quantity: Quantity = "variance",
    scores: Shaped[Tensor, " n"] | None = None,
    generator: torch.Generator | None = None,
) -> VarianceRatio:
    """Compare two estimators on one layer, paired by common random numbers.

    An estimator with a closed form enters with its exact value. Of the others, `½‖Ĝ_{2s−1} − Ĝ_{2s}‖²` (for the mean
    squared error `‖Ĝ_t − G‖²`) are i.i.d. and unbiased without knowing the mean. Both estimators start every such
    number from the same state of a generator. That makes the difference more precise where like numbers do like
    things (one design with different winners, say), and is valid everywhere: only the pairs (a_s, b_s) need be
    independent of one another, and the test of their differences takes whatever correlation they have.

    Args:
        a: the estimator above the line.
        b: the one below.
        x: input rows.
        dy: output gradients.
        draws: number of draws of each, ≥ 6, fixed beforehand.
        level: probability in (0, 1), see `VarianceRatio`.
        quantity: "variance", or "mse" about the exact product.
        scores: as in `Estimator.compress`, for both.
        generator: source of the states; torch's default generator if None.

    Raises:
        InputError: on an unusable argument, draws that are not finite, or two variances of zero.
    """
    check_rows_agree(x, dy)
    check_sample(draws, level, LEAST_DRAWS)
    if quantity not in QUANTITIES:
        raise InputError(f"quantity={quantity!r} must be one of {', '.join(map(repr, QUANTITIES))}")
    exact = [known_moment(estimator, x, dy, quantity, scores) for estimator in (a, b)]
    if exact[0] is not None and exact[1] is not None:
        return exact_ratio(exact[0], exact[1], level, quantity)
    count = draws // 2 if quantity == "variance" else draws
    # one stream of states for both, so that equal positions start from equal numbers
    states = torch.randint(2**63 - 1, (count,), generator=generator, device=_device(generator)).tolist()
    values = [
        [known] if known is not None else list(_numbers(estimator, x, dy, quantity, scores, states))
        for estimator, known in zip((a, b), exact, strict=True)
    ]
    return paired_ratio(values[0], values[1], level, draws=draws, quantity=quantity)


def known_moment(
    estimator: Estimator,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    quantity: Quantity = "variance",
    scores: Shaped[Tensor, " n"] | None = None,
) -> float | None:
    """Exact variance or mean squared error, None where there is no closed form."""
    return closed_form(lambda: _moment(estimator, x, dy, quantity, scores))


def _moment(estimator: Estimator, x: Tensor, dy: Tensor, quantity: Quantity, scores: Tensor | None) -> float:
    variance = float(estimator.variance(x, dy, scores=scores))
    if quantity == "variance":
        return variance
    bias = estimator.expectation(x, dy, scores=scores) - dy.double().T @ x.double()
    return variance + float(bias.square().sum())


def exact_ratio(a: float, b: float, level: float, quantity: Quantity = "variance") -> VarianceRatio:
    """The result for two known variances.

    Raises:
        InputError: if both are zero.
    """
    _refuse_zeros(a, b)
    ratio = a / b if b > 0 else math.inf
    p_value = 1.0 if math.isclose(ratio, 1.0, rel_tol=1e-12) else 0.0
    return VarianceRatio(ratio, ratio, ratio, p_value, level, a, b, "closed form", 0, quantity)


def paired_ratio(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    level: float,
    *,
    draws: int,
    quantity: Quantity = "variance",
) -> VarianceRatio:
    """Test and interval for E a / E b from i.i.d. pairs of numbers (Fieller's method with a correction for skewness).

    E a = ρ E b exactly if the differences a_s − ρ b_s have mean zero, which a one-sample test decides without any
    linearisation; the interval holds all ρ that this test does not reject at `level`.

    Args:
        a: one number per pair, or a single one that is known exactly.
        b: likewise; not both single.
        level: as in `VarianceRatio`.
        draws: number of draws behind them, for the result.
        quantity: what they measure, for the result.

    Raises:
        InputError: if both means are zero.
    """
    above, below = np.broadcast_arrays(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
    mean_a, mean_b = float(above.mean()), float(below.mean())
    _refuse_zeros(mean_a, mean_b)
    p_value = partial(_p_value, above, below)
    ratio = mean_a / mean_b if mean_b > 0 else math.inf
    low, high = ratio, ratio
    if 0 < ratio < math.inf:
        low = _edge(p_value, ratio, -1, level) if p_value(0.0) <= level else 0.0
        high = _edge(p_value, ratio, 1, level)
    return VarianceRatio(ratio, low, high, p_value(1.0), level, mean_a, mean_b, "monte carlo", draws, quantity)


def _p_value(above: np.ndarray, below: np.ndarray, ratio: float) -> float:
    return one_sample(above - ratio * below).p_value


def _edge(p_value: Callable[[float], float], ratio: float, side: Literal[-1, 1], level: float) -> float:
    """Where the p-value falls to `level` below (−1) or above (1) the ratio, sought on a log scale."""
    inside, width = math.log(ratio), 1 / 64
    while p_value(math.exp(inside + side * width)) > level:
        inside += side * width
        width *= 2
        if width > _FARTHEST:
            return math.inf if side > 0 else 0.0
    outside = inside + side * width
    ends = sorted((inside, outside))
    return math.exp(optimize.brentq(lambda t: p_value(math.exp(t)) - level, *ends, xtol=_ACCURACY))


def _numbers(
    estimator: Estimator,
    x: Tensor,
    dy: Tensor,
    quantity: Quantity,
    scores: Tensor | None,
    states: Sequence[int],
) -> Iterator[float]:
    generator = torch.Generator(x.device)
    exact = dy.double().T @ x.double() if quantity == "mse" else None
    for state in states:
        generator.manual_seed(state)
        first = estimator.contract(estimator.compress(x, scores=scores, generator=generator), dy).double()
        if exact is None:
            pair = PairDifferences()
            pair.add(first)
            pair.add(estimator.contract(estimator.compress(x, scores=scores, generator=generator), dy).double())
            yield pair.squares[0]
        else:
            error = first - exact
            yield numbers([inner(error, error)])[0]


def _device(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


def _refuse_zeros(a: float, b: float) -> None:
    if a <= 0 and b <= 0:
        raise InputError("both variances are zero: they have no ratio")
