"""`conditional_poisson`: of all designs of k rows with given inclusion probabilities, the most random one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from wtacrs.estimators.core.base import Traits
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.rows.fixed_size import FixedSizeEstimator, in_slots
from wtacrs.estimators.rows.inclusion import Inclusion, inclusion
from wtacrs.estimators.rows.poisson_binomial import at_size, frequencies, pairs, sizes_of

_TINY = torch.finfo(torch.float64).tiny
# π closer to 1 than this is taken for 1: 1 − π is then known to three digits at best
_CERTAIN = 1e-12
# the error of an iteration shrinks 577-fold in four steps: below rounding after 24, eight are for the start
_STEPS = 32
_STEP_LENGTHS = tuple(1 / (1.5 + 0.5 * math.cos((2 * j + 1) * math.pi / 8)) for j in (3, 0, 2, 1))


@register("conditional_poisson")
@dataclass(frozen=True, repr=False)
class ConditionalPoisson(FixedSizeEstimator):
    """Conditional Poisson (rejective, maximum-entropy) sampling: independent events, given that r of them happen.

    Source: Hájek, "Asymptotic Theory of Rejective Sampling with Varying Probabilities from a Finite Population",
    Annals of Mathematical Statistics 35, 1964; exact inclusion probabilities: Chen, Dempster & Liu, "Weighted
    finite population sampling to maximize entropy", Biometrika 81, 1994. π as in `wtacrs.estimators.rows.inclusion`.

    With r = k − |C| rows to draw from the tail, a sample S of r rows has `P(S) ∝ Π_{i∈S} p_i/(1 − p_i)`.
    The working probabilities p, Σ p = r, are the ones that give the wanted π: with M the number of independent
    events of probability p, and M_i that number without row i,

        π_i = p_i P(M_i = r − 1) / P(M = r).

    They are unique and are found by ascent of the concave log-likelihood in `θ_i = log p_i/(1 − p_i)`: each row's
    own exact step, `logit π_i − logit π_i(θ)` by one-dimensional maximisation, all rows side by side. The Hessian
    scaled to diagonal 1 is `1 − Q` with Q a symmetrisable stochastic matrix, and apart from the common shift of θ,
    which changes nothing, Q's eigenvalues are in [−1, 0] or near it. So the step is scaled by the roots of
    Chebyshev's polynomial on [1, 2]. The number of steps is fixed: nothing waits for the host.

    The draw passes through the rows once: with m rows still wanted row i is included with probability
    `p_i P(M_>i = m − 1) / P(M_≥i = m)`, where M_≥i counts the events from row i on. Their laws are sums of
    positive terms, `P(M_≥i = m) = p_i P(M_>i = m − 1) + (1 − p_i) P(M_>i = m)`: stable, and exactly r rows.

    Mean: `E I_i = π_i` up to rounding, so with weight 1/π_i `EĜ = G`.

    Variance: as for every fixed-size design (see `wtacrs.estimators.rows.fixed_size`), with
    `π_ij = p_i p_j P(M_ij = r − 2) / P(M = r)`, M_ij without i and j (see `wtacrs.estimators.rows.poisson_binomial`).
    It is at most that of r draws with replacement from π/r, for every G: never above `wta_crs(winners="paper")`. For
    the design is stable (see there): with `v_i = u_i p_i/(1 − p_i)` of positive imaginary parts all roots −v_i of
    `Π_i (w + v_i)` have negative ones, and so have those of its derivatives (Gauss and Lucas). So the derivative of
    order n − r is not 0 at w = 0, and there it is f(u) but for a factor. (First shown by Qualité, "A comparison of
    conditional Poisson sampling versus unequal probability sampling with replacement", Journal of Statistical
    Planning and Inference 138, 2008.)

    Bytes: k rows + 8 per row (index and weight). MACs: `k·d·m`, and `160·n·√n` for p, beside a pass of
    n short steps over an `n × k` table with `8·n·k` bytes of working memory: made for up to a few thousand rows.

    >>> import torch
    >>> x = torch.diag(torch.tensor([8.0, 4.0, 1.0, 1.0, 1.0, 1.0]))
    >>> kept = ConditionalPoisson(budget=4).compress(x, generator=torch.Generator().manual_seed(0))
    >>> kept.indices[:2], kept.weights, len(set(kept.indices.tolist()))
    (tensor([0, 1], dtype=torch.int32), tensor([1., 1., 2., 2.]), 4)
    """

    traits: ClassVar[Traits] = Traits(
        family="rows", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=True
    )

    def uniforms(self, n: int) -> int:
        """One per row."""
        return n

    def draw_tail(self, target: Inclusion, k: int, uniforms: Float64[Tensor, " q"]) -> Int[Tensor, " k"]:
        """One pass through the rows."""
        wanted = k - target.taken
        present, absent = working_probabilities(tail_probabilities(target), wanted)
        sampled, _ = pass_through(inclusion_table(present, absent, k), wanted, uniforms)
        return in_slots(sampled, target.taken, k)

    def macs(self, n: int, d: int, m: int) -> int:
        """`k·d·m`, and two products with n × (2.5·√n + 11) complex numbers in each step of the search for p."""
        searched = 0 if rows_for(self.budget, n) == n else 2 * _STEPS * n * frequencies(n)
        return super().macs(n, d, m) + searched

    def cuts(self, scores: Float64[Tensor, " n"], chosen: Float64[Tensor, " j"]) -> Float64[Tensor, " c"]:
        """The inclusion probability of the row that this number decides, given how many are still wanted."""
        k = rows_for(self.budget, scores.shape[0])
        target = inclusion(scores, k)
        wanted = k - target.taken
        table = inclusion_table(*working_probabilities(tail_probabilities(target), wanted), k)
        _, left = pass_through(table, wanted, chosen)
        return table[chosen.shape[0]].index_select(0, left.clamp(min=0).reshape(1))

    def joint(self, probabilities: Float64[Tensor, " n"], k: int) -> Float64[Tensor, "n n"]:
        """`π_ij = p_i p_j P(M_ij = r − 2)/P(M = r)`, O(n²·√n) time."""
        size = probabilities.sum().round().long()
        sizes = sizes_of(*working_probabilities(probabilities, size))
        spectrum = at_size(sizes, size)
        joint = pairs(spectrum / spectrum.real.sum(), sizes)
        return torch.diagonal_scatter(joint, probabilities)


def tail_probabilities(target: Inclusion) -> Float64[Tensor, " n"]:
    """π on the tail, 0 elsewhere."""
    return torch.where(target.tail, target.probabilities, 0.0)


def working_probabilities(
    probabilities: Float64[Tensor, " n"], size: Int[Tensor, ""]
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """p and 1 − p such that, given `size` = Σ π events, the inclusion probabilities are π; Σ p = `size`."""
    certain = probabilities >= 1 - _CERTAIN
    free = (probabilities > 0) & ~certain
    goal = _logit(torch.where(free, probabilities, 0.5))
    theta = goal
    for step in range(_STEPS):
        theta = _centred(theta, free, certain, size)
        sizes = sizes_of(*_present_absent(theta, free, certain))
        spectrum = at_size(sizes, size)
        included, left_out = (sizes.ratios @ spectrum).real, (sizes.absent @ spectrum).real
        current = included.clamp(min=_TINY).log() - left_out.clamp(min=_TINY).log()
        theta = theta + _STEP_LENGTHS[step % len(_STEP_LENGTHS)] * torch.where(free, goal - current, 0.0)
    return _present_absent(_centred(theta, free, certain, size), free, certain)


def _logit(p: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    return p.log() - (-p).log1p()


def _present_absent(
    theta: Float64[Tensor, " n"], free: Bool[Tensor, " n"], certain: Bool[Tensor, " n"]
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    present = torch.where(free, theta.sigmoid(), certain.to(torch.float64))
    return present, torch.where(free, (-theta).sigmoid(), (~certain).to(torch.float64))


def _centred(
    theta: Float64[Tensor, " n"], free: Bool[Tensor, " n"], certain: Bool[Tensor, " n"], size: Int[Tensor, ""]
) -> Float64[Tensor, " n"]:
    """One step of Newton's towards Σ p = size: a common shift of θ changes no π, but keeps P(M = size) large."""
    present, absent = _present_absent(theta, free, certain)
    variance = (present * absent).sum()
    shift = (size - present.sum()) / torch.where(variance > 0, variance, 1.0)
    return theta + shift.clamp(-2.0, 2.0)


def inclusion_table(
    present: Float64[Tensor, " n"], absent: Float64[Tensor, " n"], k: int
) -> Float64[Tensor, "n {k}+1"]:
    """Entry [i, m]: the probability of row i, given that m are wanted from row i on; 0 where that cannot be."""
    later = torch.nn.functional.one_hot(torch.zeros((), dtype=torch.int64, device=present.device), k + 1).double()
    table = []
    for i in range(present.shape[0] - 1, -1, -1):
        hit = present[i] * torch.nn.functional.pad(later, (1, 0))[:-1]
        later = hit + absent[i] * later
        table.append(hit / torch.where(later > 0, later, 1.0))
    return torch.stack(table[::-1])


def pass_through(
    table: Float64[Tensor, "n c"], wanted: Int[Tensor, ""], uniforms: Float64[Tensor, " q"]
) -> tuple[Bool[Tensor, " q"], Int[Tensor, ""]]:
    """Decide the first q rows one after the other; which are included, and how many are wanted after them."""
    left, included = wanted.reshape(1), []
    for i in range(uniforms.shape[0]):
        hit = uniforms[i] < table[i].index_select(0, left)
        left = left - hit.to(torch.int64)
        included.append(hit)
    decided = torch.cat(included) if included else torch.zeros_like(uniforms, dtype=torch.bool)
    return decided, left.squeeze(0)
