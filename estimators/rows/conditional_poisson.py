"""`conditional_poisson`: of all designs of k rows with given inclusion probabilities, the most random one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from wtacrs.estimators.core.base import Published, Traits
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.rows.count_tree import Level, cuts, laws_of, macs_down, macs_up, messages, sampled, splits
from wtacrs.estimators.rows.fixed_size import FixedSizeEstimator, JointInclusion, TailDraw, in_slots
from wtacrs.estimators.rows.inclusion import Inclusion, inclusion
from wtacrs.estimators.rows.poisson_binomial import at_size, few_messages, pairs, sizes_of

_TINY = torch.finfo(torch.float64).tiny
# less than this is not told from 0 by the characteristic function
_LEAST_KNOWN = 1e-11
# few rows: their spread may be small, and steps cost little by the characteristic function; of many one step will do
_FEW_ROWS = 64
_STEPS_FOR_FEW, _STEPS_FOR_MANY = 6, 1
# no move of θ is longer: where π is next to 0 or 1, the first steps may point far away
_FARTHEST = 40.0


class Fit(NamedTuple):
    """Working probabilities and what follows from them.

    Attributes:
        present: p.
        absent: 1 − p.
        levels: the laws of counts, from the leaves to the root.
        probabilities: the inclusion probabilities given the size of the sample, exact for these p.
    """

    present: Float64[Tensor, " n"]
    absent: Float64[Tensor, " n"]
    levels: list[Level]
    probabilities: Float64[Tensor, " n"]


@register("conditional_poisson")
@dataclass(frozen=True, repr=False)
class ConditionalPoisson(FixedSizeEstimator):
    """Conditional Poisson (rejective, maximum-entropy) sampling: independent events, given that r of them happen.

    Source: Hájek, "Asymptotic Theory of Rejective Sampling with Varying Probabilities from a Finite Population",
    Annals of Mathematical Statistics 35, 1964; exact inclusion probabilities: Chen, Dempster & Liu, "Weighted
    finite population sampling to maximize entropy", Biometrika 81, 1994.

    With r = k − |C| rows to draw from the tail, a sample S of r rows has `P(S) ∝ Π_{i∈S} p_i/(1 − p_i)`. With M the
    number of independent events of probability p, and M_i that number without row i, row i is included with probability

        π_i = p_i P(M_i = r − 1) / P(M = r),

    exactly known for any working probabilities p (see `wtacrs.estimators.rows.count_tree`, which also divides the sample
    down to the rows: exactly r of them). Weights are 1/π_i with these π_i. So p decides the variance only.

    The p that give the π* of `wtacrs.estimators.rows.inclusion` are unique (Chen, Dempster & Liu). They are
    approached by a fixed number of steps, so that nothing waits for the host: 6 for up to 64 rows, one for more. With
    `θ_i = log p_i/(1 − p_i)` and `v = Σ π*_i (1 − π*_i)` the start is `logit π*_i + (½ − π*_i) h`, but for a common
    shift. Where v is large h is 1/v, the next term of Hájek's expansion in 1/v. Where it is small, almost always the
    r likeliest rows are drawn, else one gives way to another: with `E ≈ v/2` the chance of that, the odds of the
    others are `π*_i/√(E(1 − E))` and those of the likeliest `√(E(1 − E))/(1 − π*_i)`, so h is `−log E(1 − E) ≈ log(1
    + 2/v)`. The smaller of both is taken. A step is `(1 − g_i)(logit π*_i − logit π_i(θ))`, g_i = c_i/Σc, with c from
    `c_i (Σc − c_i) ∝ π*_i (1 − π*_i)`: Newton's step if the indicators had covariances −c_i c_j, as they have for r =
    1, and in the limit of large v. What this leaves out is extrapolated from the last two steps (Anderson, "Iterative
    Procedures for Nonlinear Integral Equations", Journal of the ACM 12, 1965). For up to 64 rows π_i comes within
    1e-7 of π*_i relatively where v > 1, within 1e-4 else; for more rows within 1e-6 where v > 20, within 1e-3 where v
    > 3, within a tenth else: measured, not proved. (Below v = 1e-11 doubles do not tell 1 − π from 0 well enough.) EĜ
    does not depend on it.

    Mean: `E I_i = π_i`, so with weight 1/π_i `EĜ = G`.

    Variance: as for every fixed-size design (see `wtacrs.estimators.rows.fixed_size`), with
    `π_ij = p_i p_j P(M_ij = r − 2) / P(M = r)`, M_ij without i and j (see `wtacrs.estimators.rows.poisson_binomial`).
    It is at most that of r draws with replacement from π/r, for every G: never above `wta_crs(winners="paper")`, which
    draws from π*/r, but for the difference between π and π*. For
    the design is stable (see there): with `v_i = u_i p_i/(1 − p_i)` of positive imaginary parts all roots −v_i of
    `Π_i (w + v_i)` have negative ones, and so have those of its derivatives (Gauss and Lucas). So the derivative of
    order n − r is not 0 at w = 0, and there it is f(u) but for a factor. (First shown by Qualité, "A comparison of
    conditional Poisson sampling versus unequal probability sampling with replacement", Journal of Statistical
    Planning and Inference 138, 2008.)

    Bytes: k rows + 8 per row (index and weight). MACs: `k·d·m`, and for p and π some 2,200 per row at n = 4,096, 2,600 at
    16,384, in `O(n)` working memory.

    >>> import torch
    >>> x = torch.diag(torch.tensor([8.0, 4.0, 1.0, 1.0, 1.0, 1.0]))
    >>> kept = ConditionalPoisson(budget=4).compress(x, generator=torch.Generator().manual_seed(0))
    >>> kept.indices[:2], kept.weights, len(set(kept.indices.tolist()))
    (tensor([0, 1], dtype=torch.int32), tensor([1., 1., 2., 2.]), 4)
    """

    published: ClassVar[Published] = Published("Hájek 1964; Chen, Dempster & Liu 1994", unbiased=True)
    traits: ClassVar[Traits] = Traits(
        family="rows", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=True
    )

    def uniforms(self, n: int) -> int:
        """One per node of the tree."""
        return splits(n)

    def draw_tail(self, target: Inclusion, k: int, uniforms: Float64[Tensor, " q"]) -> TailDraw:
        """The sample divided down the tree."""
        wanted = k - target.taken
        fit = fitted(tail_probabilities(target), wanted)
        rows = sampled(fit.levels, wanted, uniforms, target.tail.shape[0])
        return TailDraw(in_slots(rows, target.taken, k), _with_certain(target, fit))

    def included(self, target: Inclusion, k: int) -> Float64[Tensor, " n"]:
        """The exact inclusion probabilities of the working probabilities."""
        return _with_certain(target, fitted(tail_probabilities(target), k - target.taken))

    def draw_macs(self, n: int) -> int:
        """The convolutions of large nodes, up and down the tree, for each p that is not found without it."""
        trees = 1 if n <= _FEW_ROWS else _steps(n) + 1
        return trees * (macs_up(n) + macs_down(n))

    def cuts(self, scores: Float64[Tensor, " n"], chosen: Float64[Tensor, " j"]) -> Float64[Tensor, " c"]:
        """Where the number of a node changes how its count is divided, given the nodes before it."""
        k = rows_for(self.budget, scores.shape[0])
        target = inclusion(scores, k)
        wanted = k - target.taken
        return cuts(fitted(tail_probabilities(target), wanted).levels, wanted, chosen)

    def joint(self, probabilities: Float64[Tensor, " n"], k: int) -> JointInclusion:
        """`π_ij = p_i p_j P(M_ij = r − 2)/P(M = r)`, O(n²·√n) time, with π, not what was asked for."""
        size = probabilities.sum().round().long()
        fit = fitted(probabilities, size)
        sizes = sizes_of(fit.present, fit.absent)
        spectrum = at_size(sizes, size)
        odds = _ratio(fit.present, fit.probabilities)
        together = pairs(spectrum / spectrum.real.sum(), sizes) * odds.unsqueeze(1) * odds
        return JointInclusion.of_ratios(fit.probabilities, together)


def tail_probabilities(target: Inclusion) -> Float64[Tensor, " n"]:
    """π on the tail, 0 elsewhere."""
    return torch.where(target.tail, target.probabilities, 0.0)


def fitted(probabilities: Float64[Tensor, " n"], size: Int[Tensor, ""]) -> Fit:
    """p such that, given `size` = Σ π events, the inclusion probabilities are near to π; Σ p = `size`."""
    n = probabilities.shape[0]
    free = (probabilities > 0) & (probabilities < 1)
    inside = torch.where(free, probabilities, 0.5)
    goal = inside.log() - (-inside).log1p()
    spread = torch.where(free, inside * (1 - inside), 0.0)
    lengths = 1 - _shares(spread)
    certain = (probabilities >= 1).to(torch.float64)
    theta, last_theta, last_move = goal + _start(inside, spread.sum()), None, None
    for _ in range(_steps(n)):
        theta = _centred(theta, free, certain, size)
        present, absent = _events(theta, free, certain)
        gap = _gap(goal - theta, present, absent, size)
        move = _without_shift(lengths * gap.clamp(-_FARTHEST, _FARTHEST), spread)
        here = theta
        theta = here + move
        if last_theta is not None and last_move is not None:
            bend = move - last_move
            part = _ratio((spread * move * bend).sum(), (spread * bend * bend).sum()).clamp(-0.5, 0.5)
            theta = theta - part * (here - last_theta + bend)
        last_theta, last_move = here, move
    present, absent = _events(_centred(theta, free, certain, size), free, certain)
    levels = laws_of(present, absent)
    without, given = messages(levels, size, n).unbind(1)
    included = present * given
    return Fit(present, absent, levels, _ratio(included, included + absent * without))


def _events(
    theta: Float64[Tensor, " n"], free: Bool[Tensor, " n"], certain: Float64[Tensor, " n"]
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """p and 1 − p."""
    return torch.where(free, theta.sigmoid(), certain), torch.where(free, (-theta).sigmoid(), 1 - certain)


def _gap(
    beyond: Float64[Tensor, " n"],
    present: Float64[Tensor, " n"],
    absent: Float64[Tensor, " n"],
    size: Int[Tensor, ""],
) -> Float64[Tensor, " n"]:
    """`logit π* − logit π(θ)`, from `logit π* − θ`.

    Of few rows by the characteristic function, in a fraction of the operations of a tree; it finds no gap where its
    probabilities are too small to be told from 0.
    """
    n = present.shape[0]
    if n <= _FEW_ROWS:
        without, given = few_messages(present, absent, size)
        known = (given > _LEAST_KNOWN) & (without > _LEAST_KNOWN)
    else:
        without, given = messages(laws_of(present, absent), size, n).unbind(1)
        known = torch.ones_like(given, dtype=torch.bool)
    ratio = given.clamp(min=_TINY).log() - without.clamp(min=_TINY).log()
    return torch.where(known, beyond - ratio, 0.0)


def _start(inside: Float64[Tensor, " n"], spread: Float64[Tensor, ""]) -> Float64[Tensor, " n"]:
    """What θ begins with beyond the logit of π: right where π(1 − π) sum up to much, and where to next to nothing."""
    inverse = 1.0 / torch.where(spread > 0, spread, 1.0)
    return (0.5 - inside) * torch.minimum(inverse, (2 * inverse).log1p())


def _steps(n: int) -> int:
    return _STEPS_FOR_FEW if n <= _FEW_ROWS else _STEPS_FOR_MANY


def _ratio(a: Float64[Tensor, "*n"], b: Float64[Tensor, "*m"]) -> Float64[Tensor, "*n"]:
    return a / torch.where(b > 0, b, 1.0)


def _with_certain(target: Inclusion, fit: Fit) -> Float64[Tensor, " n"]:
    return torch.where(target.tail, fit.probabilities, target.probabilities)


def _shares(spread: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """g = c/Σc with `c_i (Σc − c_i)` in proportion to `spread`, nearly."""
    shares = _ratio(spread, spread.sum())
    for _ in range(8):
        shares = spread / (1 - shares).clamp(min=1e-3)
        shares = _ratio(shares, shares.sum())
    return shares


def _without_shift(move: Float64[Tensor, " n"], spread: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """A common shift of θ changes no π."""
    return torch.where(spread > 0, move - _ratio((spread * move).sum(), spread.sum()), 0.0)


def _centred(
    theta: Float64[Tensor, " n"],
    free: Bool[Tensor, " n"],
    certain: Float64[Tensor, " n"],
    size: Int[Tensor, ""],
) -> Float64[Tensor, " n"]:
    """Two of Newton's steps towards Σ p = size: the tree keeps its laws near their means."""
    for _ in range(2):
        present = torch.where(free, theta.sigmoid(), certain)
        spread = torch.where(free, present * (-theta).sigmoid(), 0.0).sum()
        theta = theta + _ratio(size - present.sum(), spread).clamp(-2.0, 2.0)
    return theta
