"""`sampford`: Sampford's fixed-size design, whose inclusion probabilities need no iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from wtacrs.estimators.core.base import Traits
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.rows.conditional_poisson import inclusion_table, pass_through, tail_probabilities
from wtacrs.estimators.rows.fixed_size import FixedSizeEstimator, in_slots
from wtacrs.estimators.rows.inclusion import Inclusion, inclusion
from wtacrs.estimators.rows.poisson_binomial import Sizes, at_size, frequencies, sizes_of


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

    Let M count independent events of probability π, and M_i those without row i. Row i is special with
    probability `∝ (1 − π_i) π_i P(M_i = r − 1)`, which sums P_i(S) over S; given that, the other r − 1 rows are
    conditional Poisson with working probabilities π among all rows but i (see
    `wtacrs.estimators.rows.conditional_poisson`).

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

    Bytes: k rows + 8 per row (index and weight). MACs: `k·d·m`, and `2.5·n·√n` for the special row,
    beside a pass of n short steps over an `n × k` table with `8·n·k` bytes of working memory: made for up to a few
    thousand rows.

    >>> import torch
    >>> x = torch.diag(torch.tensor([8.0, 4.0, 1.0, 1.0, 1.0, 1.0]))
    >>> kept = Sampford(budget=4).compress(x, generator=torch.Generator().manual_seed(0))
    >>> kept.indices[:2], kept.weights, len(set(kept.indices.tolist()))
    (tensor([0, 1], dtype=torch.int32), tensor([1., 1., 2., 2.]), 4)
    """

    traits: ClassVar[Traits] = Traits(
        family="rows", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=True
    )

    def uniforms(self, n: int) -> int:
        """One for the special row, then one per row."""
        return n + 1

    def draw_tail(self, target: Inclusion, k: int, uniforms: Float64[Tensor, " q"]) -> Int[Tensor, " k"]:
        """The special row, then one pass through the others."""
        special, table, wanted = self._start(target, k, uniforms)
        sampled, _ = pass_through(table, wanted, uniforms[1:])
        return in_slots(sampled.index_fill(0, special, True), target.taken, k)

    def macs(self, n: int, d: int, m: int) -> int:
        """`k·d·m`, and one product with n × (2.5·√n + 11) complex numbers for the special row."""
        drawn = 0 if rows_for(self.budget, n) == n else n * frequencies(n)
        return super().macs(n, d, m) + drawn

    def cuts(self, scores: Float64[Tensor, " n"], chosen: Float64[Tensor, " j"]) -> Float64[Tensor, " c"]:
        """The distribution of the special row, then that row's inclusion probability given the rows before it."""
        k = rows_for(self.budget, scores.shape[0])
        target = inclusion(scores, k)
        if chosen.shape[0] == 0:
            ends = _special(tail_probabilities(target), k - target.taken).cumsum(0)
            return ends / ends[-1:]
        _, table, wanted = self._start(target, k, chosen)
        _, left = pass_through(table, wanted, chosen[1:])
        return table[chosen.shape[0] - 1].index_select(0, left.reshape(1))

    def joint(self, probabilities: Float64[Tensor, " n"], k: int) -> Float64[Tensor, "n n"]:
        """π_ij from the law of M, O(n²·√n) time."""
        size = probabilities.sum().round().long()
        sizes = sizes_of(probabilities, 1 - probabilities)
        if not bool((probabilities * (1 - probabilities) > 0).any()):
            return torch.outer(probabilities, probabilities)  # nothing is random
        ratios, spectrum = sizes.ratios, at_size(sizes, size)
        left_out = 1 - probabilities.unsqueeze(1)
        # Σ_l (1 − π_l) I_l, where I_i = I_j = 1 are certain: their own terms are not taken in the mean
        own = ratios * (1 - ratios) * left_out
        total = (ratios * left_out).sum(0)
        joint = (ratios * (spectrum * total)) @ ratios.T
        cross = (own * spectrum) @ ratios.T
        joint = (joint + cross + cross.T).real / (spectrum * total).real.sum()
        return torch.diagonal_scatter(joint, probabilities)

    def _start(
        self, target: Inclusion, k: int, uniforms: Float64[Tensor, " q"]
    ) -> tuple[Int[Tensor, " 1"], Float64[Tensor, "n c"], Int[Tensor, ""]]:
        """The special row, the table of the pass through the others, and how many of them are wanted."""
        p = tail_probabilities(target)
        wanted = k - target.taken
        ends = _special(p, wanted).cumsum(0)
        last = torch.searchsorted(ends, ends[-1:])
        special = torch.minimum(torch.searchsorted(ends, uniforms[:1] * ends[-1:], right=True), last)
        others = p.index_fill(0, special, 0.0)
        return special, inclusion_table(others, 1 - others, k), (wanted - 1).clamp(min=0)


def _special(p: Float64[Tensor, " n"], wanted: Int[Tensor, ""]) -> Float64[Tensor, " n"]:
    """Row i is special with probability ∝ (1 − π_i) π_i P(M_i = r − 1)."""
    sizes: Sizes = sizes_of(p, 1 - p)
    chance = ((sizes.ratios @ at_size(sizes, wanted)).real * (1 - p)).clamp(min=0.0)
    # a tail without chance, all π = 1: any of its rows will do
    return torch.where(chance.sum() > 0, chance, p + (p.sum() == 0))
