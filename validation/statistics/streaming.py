"""What the tests keep of a stream of draws: a few numbers per draw, and a few matrices of the size of dW."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from torch import Tensor


class PairDifferences:
    """Differences of consecutive draws, `D_s = (Ĝ_{2s−1} − Ĝ_{2s}) / √2`: i.i.d., mean zero, covariance Σ of one draw.

    Hence the numbers `‖D_s‖²` are i.i.d. with the total variance as their mean, whatever the mean of the draws, and
    `⟨D_s, D_{s+1}⟩²` has the mean tr Σ².
    """

    def __init__(self) -> None:
        self._half: Tensor | None = None
        self._previous: Tensor | None = None
        self._squares: list[Tensor] = []
        self._products: list[Tensor] = []

    def add(self, estimate: Tensor) -> None:
        """Take in one draw in fp64; it is kept until the next one, so it must not be changed in place."""
        if self._half is None:
            self._half = estimate
            return
        difference = (self._half - estimate).mul_(math.sqrt(0.5))
        self._half = None
        self._squares.append(inner(difference, difference))
        if self._previous is not None:
            self._products.append(inner(difference, self._previous).square())
        self._previous = difference

    @property
    def squares(self) -> list[float]:
        """`‖D_s‖²`, one number per pair of draws."""
        return numbers(self._squares)

    @property
    def squared_spectrum(self) -> tuple[float, float]:
        """tr Σ², unbiased, and two standard errors of it.

        Consecutive products share a difference; such numbers have at most twice the variance of their mean that
        independent ones would have.
        """
        products = numbers(self._products)
        count = len(products)
        mean = math.fsum(products) / count
        if count < 2:
            return mean, math.inf if mean > 0 else 0.0
        variance = math.fsum((p - mean) ** 2 for p in products) / (count - 1)
        return mean, 2 * math.sqrt(2 * variance / count)


class SplitDraws:
    """Errors `E_t = Ĝ_t − target` of a fixed number of draws, the first half a pilot for the second.

    `start_stage` makes all draws so far the pilot of those that follow.

    Attributes:
        pilot: number of draws in the pilot, `draws // 2` in the first stage.
        pairs: the differences of consecutive draws.
    """

    def __init__(self, target: Float64[Tensor, "m d"], draws: int) -> None:
        self.pilot = draws // 2
        self.pairs = PairDifferences()
        self._target = target
        self._size = torch.linalg.vector_norm(target)
        self._sum = torch.zeros_like(target)
        self._direction: Tensor | None = None
        self._pilot_norm = torch.zeros_like(self._size)
        self._count = 0
        self._along: list[Tensor] = []
        self._split: list[Tensor] = []
        self._squares: list[Tensor] = []

    def add(self, estimate: Tensor) -> None:
        """Take in one draw, fp64 and of the shape of the target."""
        error = estimate - self._target
        self._count += 1
        self.pairs.add(error)
        self._squares.append(inner(error, error))
        self._along.append(inner(error, self._target))
        if self._direction is not None:
            self._split.append(inner(error, self._direction))
        self._sum += error
        if self._count == self.pilot:
            self._aim()

    def start_stage(self) -> None:
        """Make all draws so far the pilot: those that follow are projected on the direction of their mean error."""
        self.pilot = self._count
        self._split = []
        self._aim()

    def _aim(self) -> None:
        self._pilot_norm = torch.linalg.vector_norm(self._sum)
        # a pilot without any error has no direction: zero, on which everything projects to zero
        self._direction = self._sum / torch.where(self._pilot_norm > 0, self._pilot_norm, 1.0)

    @property
    def along(self) -> list[float]:
        """`⟨E_t, target⟩ / ‖target‖` of every draw; empty if the target is zero."""
        size = float(self._size)
        return [value / size for value in numbers(self._along)] if size > 0 else []

    @property
    def split(self) -> list[float]:
        """`⟨E_t, u⟩` of the draws after the pilot, with u the direction of the pilot's mean error."""
        return numbers(self._split)

    @property
    def squares(self) -> list[float]:
        """`‖E_t‖²` of every draw."""
        return numbers(self._squares)

    @property
    def pilot_bias(self) -> float:
        """Norm of the pilot's mean error."""
        return float(self._pilot_norm) / self.pilot

    @property
    def bias_squared(self) -> float:
        """`Σ_{s≠t} ⟨E_s, E_t⟩ / (T (T − 1))`, the unbiased estimate of `‖E Ĝ − target‖²`; may be negative."""
        total = float(inner(self._sum, self._sum)) - math.fsum(self.squares)
        return total / (self._count * (self._count - 1))


def inner(a: Tensor, b: Tensor) -> Tensor:
    """`⟨a, b⟩` as a tensor without dimensions: reading it waits for the device, so that is left for later."""
    return torch.dot(a.flatten(), b.flatten())


def numbers(values: list[Tensor]) -> list[float]:
    """Tensors without dimensions as floats, fetched from their device at once."""
    return torch.stack(values).tolist() if values else []
