"""How many of n independent events happen, by their characteristic function: without loops, and exact to rounding
for probabilities of sizes near the mean.

With probabilities p, M the number of events and `φ(ω) = Π_i (1 − p_i + p_i e^{iω})`, the inverse discrete Fourier
transform gives `P(M = m) = (1/L) Σ_l e^{−iω_l m} φ(ω_l)`, `ω_l = 2πl/L`, for every L > n, and leaving rows out is
dividing by their factors (Fernández & Williams, "Closed-Form Expression for the Poisson-Binomial Probability
Density Function", IEEE Transactions on Aerospace and Electronic Systems 46, 2010). Why it is exact and cheap:

- L is odd, so that no factor is 0: |1 − p + p e^{iω}| ≥ |cos(ω/2)|, which vanishes at ω = π only.
- Where n is large, L = 5√n + 20 will do for sizes near the mean: what is L or more away from it adds at most
  `2 exp(−L²/(2σ² + 2L/3))` (Bernstein's inequality, σ² ≤ n/4), less than 1e-20.

Only sizes near the mean are asked for, where P(M = m) is at least of order 1/√n: nothing cancels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Complex128, Float64, Int
from torch import Tensor


class Sizes(NamedTuple):
    """The law of M on half of the frequencies; the others are their conjugates.

    Attributes:
        points: the number L of frequencies, odd.
        weights: 1/L at ω = 0, 2/L elsewhere: sums over this half are real parts of sums over all frequencies.
        joined: φ(ω).
        present: p.
        given: `e^{iω} / (1 − p_i + p_i e^{iω})`: event i is certain, in place of its probability. Near 1 however small
            p_i is, so that pairs of small probabilities do not underflow.
    """

    points: int
    weights: Float64[Tensor, " l"]
    joined: Complex128[Tensor, " l"]
    present: Float64[Tensor, " n"]
    given: Complex128[Tensor, "n l"]

    @property
    def ratios(self) -> Complex128[Tensor, "n l"]:
        """`p_i e^{iω} / (1 − p_i + p_i e^{iω})`: event i has happened, in place of whatever it did."""
        return self.present.unsqueeze(1) * self.given


def sizes_of(present: Float64[Tensor, " n"], absent: Float64[Tensor, " n"]) -> Sizes:
    """The law of the number of independent events of probability `present`; `absent` is 1 − present."""
    n = present.shape[0]
    points = _points(n)
    frequency = torch.arange(points // 2 + 1, device=present.device)
    turn = _turns(frequency, points)
    factors = present.unsqueeze(1) * turn + absent.unsqueeze(1)
    weights = torch.where(frequency == 0, 1.0, 2.0).double() / points
    return Sizes(points, weights, factors.prod(0), present, turn / factors)


def few_messages(
    present: Float64[Tensor, " n"], absent: Float64[Tensor, " n"], size: Int[Tensor, ""]
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """P(M = size) without row i, and with row i certain: a dozen operations, O(n²), for few rows.

    Right to some 1e-15 beside 1, not relatively. In real numbers, by sizes and angles: compilers know no complex ones.
    """
    points = _points(present.shape[0])
    frequency = torch.arange(points // 2 + 1, device=present.device)
    omega = frequency.double() * (2 * math.pi / points)
    real = absent.unsqueeze(1) + present.unsqueeze(1) * omega.cos()
    imaginary = present.unsqueeze(1) * omega.sin()
    log, angle = 0.5 * (real.square() + imaginary.square()).log(), torch.atan2(imaginary, real)
    weight = torch.where(frequency == 0, 1.0, 2.0).double() / points
    left = weight * (log.sum(0) - log).exp()
    turned = angle.sum(0) - angle - omega * size
    return (left * turned.cos()).sum(1), (left * (turned + omega).cos()).sum(1)


def at_size(sizes: Sizes, size: Int[Tensor, ""]) -> Complex128[Tensor, " l"]:
    """Summed over the frequencies, the real part is P(M = size); times `ratios[i]`, P(M = size and event i)."""
    frequency = torch.arange(sizes.weights.shape[0], device=size.device)
    return sizes.weights * sizes.joined * _turns(-frequency * size, sizes.points)


def averaged(sizes: Sizes, values: Float64[Tensor, " p"], centre: Int[Tensor, ""]) -> Complex128[Tensor, " l"]:
    """As `at_size`, for the mean of a function of M, given by its values at `sizes_near(sizes, centre)`.

    Sizes beyond these are taken for others among them. They are at least five standard deviations away (or there are
    none), of probability 1e-6 at most: for max(1, M/R) and its like the mean is off by less than 1e-9.
    """
    frequency = torch.arange(sizes.weights.shape[0], device=centre.device)
    turns = _turns(-frequency.unsqueeze(1) * sizes_near(sizes, centre), sizes.points)
    return sizes.weights * sizes.joined * (turns @ values.to(turns.dtype))


def sizes_near(sizes: Sizes, centre: Int[Tensor, ""]) -> Int[Tensor, " p"]:
    """L sizes: every one if L is more than n, else those around the centre."""
    if sizes.points > sizes.present.shape[0]:
        # frequencies tell sizes apart up to multiples of L: a window around the centre would take n for n − L
        return torch.arange(sizes.points, device=centre.device)
    return centre + torch.arange(sizes.points, device=centre.device) - sizes.points // 2


def pairs(spectrum: Complex128[Tensor, " l"], sizes: Sizes) -> Float64[Tensor, "n n"]:
    """The mean that `spectrum` stands for on the event that i and j both happen, over p_i p_j; no use on the diagonal."""
    return ((sizes.given * spectrum) @ sizes.given.T).real


def _points(n: int) -> int:
    return min(n + 1, math.ceil(5 * math.sqrt(n)) + 20) | 1


def _turns(steps: Int[Tensor, "*shape"], points: int) -> Complex128[Tensor, "*shape"]:
    """`e^{2πi·steps/points}`, the angle reduced before it is rounded."""
    angle = torch.remainder(steps, points).double() * (2 * math.pi / points)
    return torch.polar(torch.ones_like(angle), angle)
