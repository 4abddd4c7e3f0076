"""`bernoulli`: every row decides for itself; the number of rows is random, the number of slots is not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Complex128, Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Published, Traits
from wtacrs.estimators.core.checks import check_rows_agree
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.row_design import RowPlan
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.rows.inclusion import Inclusion, inclusion
from wtacrs.estimators.rows.poisson_binomial import Sizes, averaged, pairs, sizes_near, sizes_of
from wtacrs.estimators.rows.row_estimator import RowEstimator, RowMoments, all_rows, pair_norms


class Overflow(NamedTuple):
    """The law of the number M of included tail rows, and what overflow does to their coefficients.

    Attributes:
        target: the inclusion probabilities.
        probabilities: π on the tail, 0 elsewhere.
        sizes: the law of M.
        one: the mean of max(1, M/R), as in `poisson_binomial.averaged`.
        both: the mean of g(M).
    """

    target: Inclusion
    probabilities: Float64[Tensor, " n"]
    sizes: Sizes
    one: Complex128[Tensor, " l"]
    both: Complex128[Tensor, " l"]


@register("bernoulli")
@dataclass(frozen=True, repr=False)
class Bernoulli(RowEstimator):
    """Poisson sampling: row i is included with probability π_i, independently of all others.

    Source: Hájek, "Asymptotic Theory of Rejective Sampling with Varying Probabilities from a Finite Population",
    Annals of Mathematical Statistics 35, 1964; inclusion probabilities `π_i = min(1, s_i/τ)`, Σ π = k, as in
    `wtacrs.estimators.rows.inclusion`. The budget is met in the mean: the number M of included tail rows has mean
    k − |C|, C being the take-all set, and variance `Σ π_i (1 − π_i) ≤ k (1 − k/n)`.

    Shapes are fixed all the same. There are `m = k + ⌈reserve·√(k (1 − k/n))⌉` slots, at most n: `reserve`
    standard deviations beyond the mean. C takes |C| of them, `R = m − |C|` are left. If M > R, then R of the M
    rows are kept, every subset of that size alike, and their weight is `(M/R)/π_i` in place of 1/π_i. Slots that
    are not needed have weight 0. `reserve=0` never keeps more than k rows.

    Mean: given the included rows, each is kept with probability min(1, R/M) and then weighs max(1, M/R)/π_i. The
    product is 1/π_i whatever M is, so `E c_i = π_i/π_i = 1` and `EĜ = G`, overflow or not.

    Variance: where there is a slot for every row (m = n) coefficients are independent, hence

        Var Ĝ = Σ_i (1/π_i − 1) w_i²,      w_i = ‖x_i‖‖y_i‖.

    Otherwise overflow adds to it. For M > R two of M rows are both kept with probability R(R−1)/(M(M−1)), so

        E c_i²    = E[max(1, M/R) | i included] / π_i,
        E c_i c_j = E[g(M) | i, j included],      g(M) = M(R−1)/(R(M−1)) for M > R, else 1,

    for tail rows i ≠ j, and the law of M is known (see `wtacrs.estimators.rows.poisson_binomial`). A random size costs
    where rows are alike: with Z_i all equal the variance is not 0, as it is for every fixed-size design and for
    `crs`. Poisson sampling is not below `crs` in general.

    Bytes: m rows + 8 per row (index and weight), used or not. MACs: `m·d·m_out` for dY `[n, m_out]`.

    >>> import torch
    >>> x = torch.ones(100, 4)
    >>> [Bernoulli(budget=0.3, reserve=r).compress(x).rows.shape[0] for r in (0.0, 2.0, 20.0)]
    [30, 40, 100]
    """

    reserve: float = 2.0

    published: ClassVar[Published] = Published("Hájek 1964", unbiased=True)
    traits: ClassVar[Traits] = Traits(
        family="rows", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        r = self.reserve
        if isinstance(r, bool) or not isinstance(r, (int, float)) or not 0 <= r < math.inf:
            raise InputError(f"bernoulli: reserve={r!r} must be a finite number ≥ 0 (standard deviations)")

    def slots(self, n: int) -> int:
        """Number of rows that are stored, used or not."""
        k = rows_for(self.budget, n)
        return min(n, k + math.ceil(self.reserve * math.sqrt(k * (1 - k / n)))) if n else 0

    def uniforms(self, n: int) -> int:
        """One per row, and one key per row before them if rows may have to be left out again."""
        return self.keys(n) + n

    def keys(self, n: int) -> int:
        """One per row, unless there is a slot for every row."""
        return n if self.slots(n) < n else 0

    def plan(self, scores: Float64[Tensor, " n"], uniforms: Float64[Tensor, " q"]) -> RowPlan:
        """The take-all set first, then the included rows in order of their keys, as far as the slots go."""
        n = scores.shape[0]
        k, slots = rows_for(self.budget, n), self.slots(n)
        if k == n:
            return all_rows(scores)
        target = inclusion(scores, k)
        included = target.tail & (uniforms[self.keys(n) :] < target.probabilities)
        keys = uniforms[:n] if slots < n else torch.zeros_like(scores)
        by_key = torch.where(included, keys, 2.0).argsort(stable=True)
        slot = torch.arange(slots, device=scores.device)
        taken, place, size = slot < target.taken, slot - target.taken, included.sum()
        row = torch.where(taken, target.ranking.order[:slots], by_key[place.clamp(min=0)])
        used = taken | (place < size)
        row = torch.where(used, row, target.ranking.order[:1])
        thinned = (size / (slots - target.taken).double()).clamp(min=1.0)
        weight = torch.where(taken, 1.0, thinned / target.probabilities[row])
        return RowPlan(row, torch.where(used, weight, 0.0))

    def macs(self, n: int, d: int, m: int) -> int:
        """That of all slots, used or not."""
        return self.slots(n) * d * m

    def pair_slots(self, n: int) -> int:
        """All of them, used or not."""
        return self.slots(n)

    def cuts(self, scores: Float64[Tensor, " n"], chosen: Float64[Tensor, " j"]) -> Float64[Tensor, " c"]:
        """The inclusion probability of the row that this number decides."""
        n = scores.shape[0]
        row = chosen.shape[0] - self.keys(n)
        return inclusion(scores, rows_for(self.budget, n)).probabilities[row : row + 1]

    def moments(self, scores: Float64[Tensor, " n"]) -> RowMoments:
        """Independent coefficients, corrected for overflow where slots are fewer than rows; O(n²·√n) time."""
        n = scores.shape[0]
        reached = (scores > 0).to(torch.float64)
        if rows_for(self.budget, n) == n:
            return RowMoments(reached, scores.new_zeros((n, n)))
        if self.slots(n) == n:
            return RowMoments(reached, torch.diag(self.weight_squares(scores) - reached))
        target, _, sizes, _, both = self._overflow(scores)
        together = pairs(both, sizes)
        in_tail = target.tail.to(torch.float64)
        covariance = (together - 1.0) * torch.outer(in_tail, in_tail)
        variances = (self.weight_squares(scores) - 1.0) * in_tail
        return RowMoments(reached, torch.diagonal_scatter(covariance, variances))

    def weight_squares(self, scores: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """`E c_i² = E[max(1, M/R) | i included] / π_i`."""
        n = scores.shape[0]
        reached = (scores > 0).to(torch.float64)
        if rows_for(self.budget, n) == n:
            return reached
        target = inclusion(scores, rows_for(self.budget, n))
        largest = torch.finfo(torch.float64).max
        inverse = torch.where(target.probabilities > 0, (1 / target.probabilities).clamp(max=largest), 0.0)
        if self.slots(n) == n:
            return inverse
        _, _, sizes, one, _ = self._overflow(scores)
        raised = (sizes.given @ one).real
        return torch.where(target.tail, (raised * inverse).clamp(max=largest), reached)

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`Σ (1/π_i − 1) w_i²`, O(n·d), if there is a slot for every row; else from `moments`, with overflow."""
        check_rows_agree(x, dy)
        s = sampling_scores(x, scores)
        n = s.shape[0]
        if self.slots(n) < n:
            return super().variance(x, dy, scores=scores)
        excess = self.weight_squares(s) - (s > 0).to(torch.float64)
        return (excess * pair_norms(x, dy).square()).sum().clamp(min=0.0)

    def _overflow(self, scores: Float64[Tensor, " n"]) -> Overflow:
        """The law of M, and what overflow does at each of its values."""
        n = scores.shape[0]
        target = inclusion(scores, rows_for(self.budget, n))
        p = torch.where(target.tail, target.probabilities, 0.0)
        sizes = sizes_of(p, 1 - p)
        centre = rows_for(self.budget, n) - target.taken
        size, room = sizes_near(sizes, centre).double(), (self.slots(n) - target.taken).double()
        over = size > room
        both = torch.where(over, size * (room - 1) / (room * (size - 1)).clamp(min=1.0), 1.0)
        one = torch.where(over, size / room, 1.0)
        return Overflow(target, p, sizes, averaged(sizes, one, centre), averaged(sizes, both, centre))
