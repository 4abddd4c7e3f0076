"""Moments of an estimator by repeated draws, streaming: nothing is kept of a draw, memory is O(m·d).

The building block is the residual against the mean of the draws before it, `r_t = √((t−1)/t) (Ĝ_t − mean_{t−1})`.
The residuals are uncorrelated, each has the covariance Σ of one draw, and `Σ_t ‖r_t‖²` is exactly the sum of
squares about the final mean (Welford's update). Hence their squared norms give the variance together with its
standard error, and their inner products give what the standard error of the squared bias needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators import Estimator, InputError
from wtacrs.estimators.core.checks import check_rows_agree
from wtacrs.estimators.core.products import double_product


class MonteCarloMoments(NamedTuple):
    """Moments over `draws` independent draws; errors are standard errors (one standard deviation).

    Attributes:
        mean: average estimate.
        variance: total variance `E‖Ĝ − EĜ‖²_F`, unbiased.
        bias_squared: `‖mean − G‖²_F − variance / draws`, an unbiased estimate of `‖EĜ − G‖²_F`; may be negative.
            Its error is up to a third too large when the bias is lost in the noise of a few directions.
        mse: average of `‖Ĝ − G‖²_F`.
        inner: average of `⟨Ĝ, G⟩`.
    """

    mean: Float64[Tensor, "m d"]
    variance: float
    variance_error: float
    bias_squared: float
    bias_squared_error: float
    mse: float
    mse_error: float
    inner: float
    inner_error: float
    draws: int


class Running:
    """Mean and standard error of a stream of numbers (Welford)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0

    def add(self, value: float) -> None:
        """Take in one number."""
        self.count += 1
        before = value - self.mean
        self.mean += before / self.count
        self._squares += before * (value - self.mean)

    @property
    def error(self) -> float:
        """Standard error of the mean; infinite below two numbers."""
        if self.count < 2:
            return math.inf
        return math.sqrt(max(self._squares, 0.0) / (self.count - 1) / self.count)


@torch.no_grad()
def monte_carlo(
    estimator: Estimator,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    *,
    draws: int,
    scores: Shaped[Tensor, " n"] | None = None,
    generator: torch.Generator | None = None,
    target: Float[Tensor, "m d"] | None = None,
) -> MonteCarloMoments:
    """Estimate mean, variance, squared bias and mean squared error from repeated draws.

    Args:
        estimator: any estimator.
        x: input rows.
        dy: output gradients.
        draws: number of draws ≥ 3, fixed beforehand.
        scores: as in `Estimator.compress`.
        generator: source of the draws; torch's default generator if None.
        target: what the bias and the error are measured against; the exact product in fp64 if None.

    Raises:
        InputError: on fewer than 3 draws or a target of another shape.
    """
    target = _checked_target(x, dy, draws, target)
    return streaming_moments(estimates(estimator, x, dy, draws, scores, generator), target, draws)


def streaming_moments(
    stream: Iterable[Float64[Tensor, "m d"]], target: Float64[Tensor, "m d"], draws: int
) -> MonteCarloMoments:
    """Moments of a stream of independent estimates, which may be sums of several estimators'.

    Args:
        stream: the estimates.
        target: what the bias and the error are measured against.
        draws: how many there are, ≥ 3.

    Raises:
        InputError: on fewer than 3 draws.
    """
    _check_draws(draws)
    mean = torch.zeros_like(target)
    previous = torch.zeros_like(target)
    squares, errors, cross, along, inner = Running(), Running(), Running(), Running(), Running()
    harmonic = 0.0
    for t, estimate in enumerate(stream, start=1):
        errors.add(_squared_norm(estimate - target))
        inner.add(_inner(estimate, target))
        if t > 1:
            residual = (estimate - mean) * math.sqrt((t - 1) / t)
            squares.add(_squared_norm(residual))
            if t > draws // 2:  # the mean so far is close to the final one
                along.add(_inner(residual, mean - target) ** 2)
                harmonic += 1.0 / (t - 1)
            if t > 2:
                cross.add(_inner(residual, previous) ** 2)
            previous = residual
        mean += (estimate - mean) / t
    # E⟨r_t, r_{t−1}⟩² = tr Σ², and E⟨r_t, mean_{t−1} − G⟩² = βᵀΣβ + tr Σ² / (t−1) for the bias β
    bias_along = max(along.mean - cross.mean * harmonic / along.count, 0.0)
    bias_error = math.sqrt(4 * bias_along / draws + 2 * cross.mean / (draws * (draws - 1)))
    return MonteCarloMoments(
        mean=mean,
        variance=squares.mean,
        variance_error=squares.error,
        bias_squared=_squared_norm(mean - target) - squares.mean / draws,
        bias_squared_error=bias_error,
        mse=errors.mean,
        mse_error=errors.error,
        inner=inner.mean,
        inner_error=inner.error,
        draws=draws,
    )


def estimates(
    estimator: Estimator,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    draws: int,
    scores: Shaped[Tensor, " n"] | None,
    generator: torch.Generator | None,
) -> Iterator[Float64[Tensor, "m d"]]:
    """`draws` independent estimates of `dy.T @ x`, in fp64."""
    for _ in range(draws):
        yield estimator.contract(estimator.compress(x, scores=scores, generator=generator), dy).double()


def _checked_target(x: Tensor, dy: Tensor, draws: int, target: Tensor | None) -> Tensor:
    check_rows_agree(x, dy)
    _check_draws(draws)
    if target is None:
        return double_product(x, dy)
    shape = [dy.shape[1], x.shape[1]]
    if list(target.shape) != shape:
        raise InputError(
            f"target must have shape {shape} = [columns of dy, columns of x], got {list(target.shape)}"
        )
    return target.double()


def _check_draws(draws: int) -> None:
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 3:
        raise InputError(f"draws={draws!r} must be an integer ≥ 3")


def _squared_norm(matrix: Tensor) -> float:
    return float(matrix.square().sum())


def _inner(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum())
