"""`sampford`: Sampford's fixed-size design, whose inclusion probabilities need no iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from wtacrs.estimators.core.base import Published, Traits
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.rows.conditional_poisson import tail_probabilities
from wtacrs.estimators.rows.count_tree import Level, cuts, laws_of, macs_up, sampled, splits
from wtacrs.estimators.rows.fixed_size import FixedSizeEstimator, JointInclusion, TailDraw, in_slots
from wtacrs.estimators.rows.inclusion import Inclusion, inclusion
from wtacrs.estimators.rows.poisson_binomial import at_size, sizes_of


@register("sampford")
@dataclass(frozen=True, repr=False)
class Sampford(FixedSizeEstimator):
    """Sampford sampling: one row from π, r − 1 more from the odds of π, all of them different.

    Source: Sampford, "On sampling without replacement with unequal probabilities of selection", Biometrika 54,
    1967; inclusion probabilities as in `wtacrs.estimators.rows.inclusion`. On the tail, with r = k − |C| rows to draw,

        P(S) ∝ Π_{i∈S} π_i/(1 − π_i) · Σ_{i∈S} (1 − π_i)        for every S of r rows.

    Sampford draws with replacement and starts again until all rows differ. That takes a random time; here the
    same P(S) is drawn without rejection, as a mixture over one special row: `P(S) ∝ Σ_{i∈S} P_i(S)` with

        P_i(S) = (1 − π_i) · Π_{l∈S} π_l/(1 − π_l).

    With independent indicators I of probability π, `P_i(S) ∝ E[(1 − π_i) I_i; sample S]`. So each node of a tree of rows
    (see `wtacrs.estimators.rows.count_tree`) keeps two laws of its count m, P(m) and `E[Σ_i (1 − π_i) I_i; m]`: two
    children A and B are joined to `P_A P_B` and `E_A P_B + P_A E_B`. Downwards the node that holds the special row
    divides its count and says on which side it is; a node without it is that of conditional Poisson sampling.
    π needs no search, as it does there.

    Mean: write λ = π/(1 − π) and f(S) for the right-hand side. As Σ π = r, `Σ_{i∈S} (1 − π_i) = Σ_{l∉S} π_l`, so

        Σ_{S∋i} f(S) = Σ_{S∋i} Σ_{l∉S} λ_i (Π_{S−i} λ) π_l = λ_i Σ_{S'∌i} (Π_{S'} λ) Σ_{l∈S'} (1 − π_l),

    with S' = S − i + l and π_l = λ_l (1 − π_l). That is `λ_i Σ_{S'∌i} f(S')`: the odds of i being in the sample
    are λ_i, hence P(i ∈ S) = π_i exactly. With weight 1/π_i `EĜ = G`.

    Variance: as for every fixed-size design (see `wtacrs.estimators.rows.fixed_size`), with `π_ij ∝ E[I_i I_j Σ_l I_l
    (1 − π_l); M = r]` over independent indicators I. It is at most that of r draws with replacement from π/r, for
    every G: never above `wta_crs(winners="paper")`. For the design is stable (see there): with `v_i = λ_i u_i` of
    positive imaginary parts f(u) is, but for a factor, the derivative of order n − r at w = 0 of

        q(w) = Σ_i (1 − π_i) v_i Π_{l≠i} (w + v_l) = Π_l (w + v_l) · Σ_i (1 − π_i) / (1 + w/v_i).

    q has no root w of imaginary part ≥ 0: at 0 the sum is positive, elsewhere w times it has a positive imaginary part,
    as `w/(1 + w/v_i) = 1/(1/w + 1/v_i)` has. Nor then have its derivatives (Gauss and Lucas). (First shown by Gabler,
    "A comparison of Sampford's sampling procedure versus unequal probability sampling with replacement", Biometrika
    68, 1981.)

    Bytes: k rows + 8 per row (index and weight). MACs: `k·d·m`, and for the laws some 1,400 per row at n = 4,096,
    1,700 at 16,384, in `O(n)` working memory.

    >>> import torch
    >>> x = torch.diag(torch.tensor([8.0, 4.0, 1.0, 1.0, 1.0, 1.0]))
    >>> kept = Sampford(budget=4).compress(x, generator=torch.Generator().manual_seed(0))
    >>> kept.indices[:2], kept.weights, len(set(kept.indices.tolist()))
    (tensor([0, 1], dtype=torch.int32), tensor([1., 1., 2., 2.]), 4)
    """

    published: ClassVar[Published] = Published("Sampford 1967", unbiased=True)
    traits: ClassVar[Traits] = Traits(
        family="rows", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=True
    )

    def uniforms(self, n: int) -> int:
        """One per node of the tree."""
        return splits(n)

    def draw_tail(self, target: Inclusion, k: int, uniforms: Float64[Tensor, " q"]) -> TailDraw:
        """The sample and its special row divided down the tree."""
        rows = sampled(_levels(target), k - target.taken, uniforms, target.tail.shape[0])
        return TailDraw(in_slots(rows, target.taken, k), target.probabilities)

    def draw_macs(self, n: int) -> int:
        """The convolutions of large nodes, up the tree."""
        return macs_up(n, 2)

    def cuts(self, scores: Float64[Tensor, " n"], chosen: Float64[Tensor, " j"]) -> Float64[Tensor, " c"]:
        """Where the number of a node changes how its count is divided, given the nodes before it."""
        k = rows_for(self.budget, scores.shape[0])
        target = inclusion(scores, k)
        return cuts(_levels(target), k - target.taken, chosen)

    def joint(self, probabilities: Float64[Tensor, " n"], k: int) -> JointInclusion:
        """π_ij from the law of M, O(n²·√n) time."""
        free = (probabilities > 0) & (probabilities < 1)
        size = torch.where(free, probabilities, 0.0).sum().round().long()
        if not bool(size > 0):  # nothing is random: no row, or rows so small that rounding leaves none to be drawn
            return JointInclusion.of_ratios(
                probabilities, torch.ones_like(torch.outer(probabilities, probabilities))
            )
        p = torch.where(free, probabilities, 0.0)
        sizes = sizes_of(p, 1 - p)
        ratios, given, spectrum = sizes.ratios, sizes.given, at_size(sizes, size)
        left_out = 1 - p.unsqueeze(1)
        # Σ_l (1 − π_l) I_l, where I_i = I_j = 1 are certain: their own terms are not taken in the mean
        own = given * (1 - ratios) * left_out
        total = (ratios * left_out).sum(0)
        together = (given * (spectrum * total)) @ given.T
        cross = (own * spectrum) @ given.T
        together = (together + cross + cross.T).real / (spectrum * total).real.sum()
        both = free.unsqueeze(1) & free
        return JointInclusion.of_ratios(probabilities, torch.where(both, together, 1.0))


def _levels(target: Inclusion) -> list[Level]:
    p = tail_probabilities(target)
    return laws_of(p, 1 - p, 1 - p)
