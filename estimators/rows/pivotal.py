"""`pivotal`: fixed-size sampling with probability proportional to size, as a knock-out tournament."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from wtacrs.estimators.core.base import Published, Traits
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.rows.fixed_size import JointInclusion, OrderedEstimator, TailDraw, in_slots
from wtacrs.estimators.rows.inclusion import Inclusion, inclusion


class PivotalContest(NamedTuple):
    """The contests of one round, one per pair of neighbours; none of it depends on how earlier ones ended.

    Attributes:
        settled: the two residuals exceed 1: the winner is sampled and the loser goes on. Otherwise the loser is
            out and the winner goes on.
        left: probability that the left one wins.
        residual: residual of the one that goes on.
    """

    settled: Bool[Tensor, " f"]
    left: Float64[Tensor, " f"]
    residual: Float64[Tensor, " f"]


@register("pivotal")
@dataclass(frozen=True, repr=False)
class Pivotal(OrderedEstimator):
    """Pivotal sampling: rows meet in pairs in a knock-out tournament and compete for their inclusion probabilities.

    Source: Deville & Tillé, "Unequal probability sampling without replacement through a splitting method",
    Biometrika 85, 1998; on a tree Srinivasan, "Distributions on Level-Sets with Applications to Approximation
    Algorithms", FOCS 2001. Inclusion probabilities as in `wtacrs.estimators.rows.inclusion`.

    The rows are the leaves of a binary tree, each with the residual π_i. At every node the two that have come so
    far, with residuals a and b in (0, 1], meet:

    - a + b ≤ 1: the left one goes on with a + b with probability a/(a+b), else the right one; the other is out;
    - a + b > 1: the left one is sampled with probability (1−b)/(2−a−b), else the right one; the other goes on with
      a + b − 1.

    The last one has residual 1, as Σ π is an integer, and is sampled. Whoever goes on, the residual is the same:
    all rounds are computed side by side, ⌈log₂ n⌉ of them, without asking how a contest has ended.

    Mean: a contest leaves both residuals unchanged in the mean (a sampled row has residual 1, one that is out 0). In
    the first case `a = (a+b)·a/(a+b)`; in the second `1·(1−b)/(2−a−b) + (a+b−1)·(1−a)/(2−a−b) = a`. So residuals
    are martingales, `E I_i = π_i`, and with weight 1/π_i `EĜ = G`. Contests conserve a + b: exactly k rows.

    Variance: as for every fixed-size design (see `wtacrs.estimators.rows.fixed_size`). With `order="rows"` the joint
    inclusion probabilities are exact. Up to the node where i and j first meet in one subtree they are independent.
    From there on let S_ij be the probability that both are sampled and M_ij that i is sampled and j goes on. A
    contest samples the one that comes from this side with probability q and sends it on with probability r, so it
    turns S_ij into `S_ij + q (M_ij + M_ji)` and M_ij into `r M_ij`. At the root the last one is sampled:
    `π_ij = S_ij + M_ij + M_ji`. `order="random"` shuffles the rows first; averaged over all orders there is no
    closed form.

    In any order the variance is at most that of r draws with replacement from π/r, r the rows drawn from the tail, for
    every G: never above `wta_crs(winners="paper")`. For the design is stable (see there). Let u stand for the fate of
    the one that goes on from a node: at the root `f = u`, it is sampled. Downwards, a node turns `f = A + B u` into

    - a + b ≤ 1: f with `u = (a u_left + b u_right)/(a+b)`;
    - a + b > 1: `A ū + B u_left u_right` with `ū = θ u_left + (1−θ) u_right`, θ = (1−b)/(2−a−b), since one is
      sampled in any case: ū times f with `u = u_left u_right/ū`, that is `1/u = θ/u_right + (1−θ)/u_left`.

    Positive imaginary parts of u_left and u_right give positive ones to u and ū: f stays stable down to the leaves.
    (First shown by Chauvet & Ruiz-Gazen, "A comparison of pivotal sampling and unequal probability sampling with
    replacement", Statistics & Probability Letters 121, 2017, arXiv 1609.02688.)

    Bytes: k rows + 8 per row (index and weight). MACs: `k·d·m`.

    >>> import torch
    >>> x = torch.diag(torch.tensor([8.0, 4.0, 1.0, 1.0, 1.0, 1.0]))
    >>> kept = Pivotal(budget=4).compress(x, generator=torch.Generator().manual_seed(0))
    >>> kept.indices[:2], kept.weights, len(set(kept.indices.tolist()))
    (tensor([0, 1], dtype=torch.int32), tensor([1., 1., 2., 2.]), 4)
    """

    published: ClassVar[Published] = Published("Deville & Tillé 1998", unbiased=True)
    traits: ClassVar[Traits] = Traits(
        family="rows", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=True
    )

    def uniforms(self, n: int) -> int:
        """One per contest, and with random order one key per row before them."""
        return self.keys(n) + _leaves(n) - 1

    def draw_tail(self, target: Inclusion, k: int, uniforms: Float64[Tensor, " q"]) -> TailDraw:
        """Play the tournament round by round; rows beyond the tail enter it with residual 0 and lose."""
        n = target.tail.shape[0]
        rows, residual = self._entrants(target, uniforms)
        sampled = torch.zeros(n + 1, dtype=torch.bool, device=rows.device)
        standing, used = rows, self.keys(n)
        for contests in _rounds(residual):
            count = contests.left.shape[0]
            wins = uniforms[used : used + count] < contests.left
            used += count
            left, right = standing[0::2], standing[1::2]
            goes_on = wins ^ contests.settled
            leaves = torch.where(goes_on, right, left)
            # row n takes the marks of those that are out
            sampled = sampled.index_fill(0, torch.where(contests.settled, leaves, n), True)
            standing = torch.where(goes_on, left, right)
        # by rounding the last residual is near 1, or near 0 with one row more sampled before
        missing = sampled[:n].sum() < k - target.taken
        sampled = sampled.index_fill(0, torch.where(missing, standing, n), True)
        return TailDraw(in_slots(sampled[:n], target.taken, k), target.probabilities)

    def cuts(self, scores: Float64[Tensor, " n"], chosen: Float64[Tensor, " j"]) -> Float64[Tensor, " c"]:
        """Where this contest is decided, in the order that the keys have fixed."""
        n = scores.shape[0]
        target = inclusion(scores, rows_for(self.budget, n))
        _, residual = self._entrants(target, chosen)
        left = torch.cat([scores[:0], *(contests.left for contests in _rounds(residual))])
        contest = chosen.shape[0] - self.keys(n)
        return left[contest : contest + 1]

    def joint(self, probabilities: Float64[Tensor, " n"], k: int) -> JointInclusion:
        """π_ij of the fixed order, O(n² log n) time.

        Raises:
            NoClosedForm: with random order.
        """
        if self.order == "random":
            return super().joint(probabilities, k)
        n = probabilities.shape[0]
        free = (probabilities > 0) & (probabilities < 1)
        rows = _places(free, free, torch.zeros_like(probabilities))
        residual = _padded(torch.where(free, probabilities, 0.0)[rows])
        leaf = torch.arange(residual.shape[0], device=residual.device)
        apart = torch.eye(residual.shape[0], dtype=torch.bool, device=residual.device).logical_not()
        alone = torch.zeros_like(residual)  # P(i has been sampled)
        stands = (residual > 0).to(residual.dtype)  # P(i goes on)
        both, mixed = torch.zeros_like(apart, dtype=residual.dtype), torch.zeros_like(apart, dtype=residual.dtype)
        root = residual[:1]
        for level, contests in enumerate(_rounds(residual)):
            q, r = _fates(contests, leaf, level)
            both = both + q[:, None] * mixed.T + q[None, :] * mixed
            mixed = mixed * r[None, :]
            meet = apart & ((leaf[:, None] >> (level + 1)) == (leaf[None, :] >> (level + 1)))
            apart = apart & ~meet
            first = torch.outer(alone, alone) + torch.outer(alone, stands * q) + torch.outer(stands * q, alone)
            # one of two that meet is sampled, the other goes on
            one_each = torch.outer(stands * q, stands)
            both = torch.where(meet, first, both)
            mixed = torch.where(meet, torch.outer(alone, stands * r) + one_each, mixed)
            alone, stands = alone + stands * q, stands * r
            root = contests.residual
        # whoever is left at the root is sampled, unless rounding has settled its last contest
        both = torch.where(root > 0.5, both + mixed + mixed.T, both)[:n, :n]
        back = rows.argsort()
        both = both[back][:, back]
        certain = probabilities == 1
        both = torch.where(certain[:, None], probabilities[None, :], both)
        both = torch.where(certain[None, :], probabilities[:, None], both)
        return JointInclusion.of(torch.diagonal_scatter(both, probabilities))

    def _entrants(
        self, target: Inclusion, uniforms: Float64[Tensor, " q"]
    ) -> tuple[Int[Tensor, " m"], Float64[Tensor, " m"]]:
        """The rows in their order with their residuals, up to a power of two; places beyond n hold row n."""
        n = target.tail.shape[0]
        keys = uniforms[:n] if self.order == "random" else torch.zeros_like(target.probabilities)
        rows = _places(target.tail & (target.probabilities < 1), target.tail, keys)
        residual = torch.where(target.tail, target.probabilities, 0.0)[rows]
        return torch.nn.functional.pad(rows, (0, _leaves(n) - n), value=n), _padded(residual)


def _places(free: Bool[Tensor, " n"], tail: Bool[Tensor, " n"], keys: Float64[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Rows that may lose by their keys in [0, 1), then those of the tail with π = 1, then all others.

    A residual of 1 leaves the other one of its contest as it was: at the end such rows change no other contest.
    """
    return torch.where(free, keys, torch.where(tail, 2.0, 3.0)).argsort(stable=True)


def _leaves(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def _padded(residual: Float64[Tensor, " n"]) -> Float64[Tensor, " m"]:
    return torch.nn.functional.pad(residual, (0, _leaves(residual.shape[0]) - residual.shape[0]))


def _rounds(residual: Float64[Tensor, " m"]) -> Iterator[PivotalContest]:
    """The rounds of a tournament between neighbours, from the leaves to the root."""
    while residual.shape[0] > 1:
        contests = _contests(residual[0::2], residual[1::2])
        yield contests
        residual = contests.residual


def _contests(a: Float64[Tensor, " f"], b: Float64[Tensor, " f"]) -> PivotalContest:
    total = a + b
    settled = total > 1
    # 1 − a and 1 − b vanish together at a = b = 1: whoever wins, both are sampled
    part, whole = torch.where(settled, 1 - b, a), torch.where(settled, (1 - a) + (1 - b), total)
    left = torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)
    return PivotalContest(settled, left, torch.where(settled, total - 1, total))


def _fates(
    contests: PivotalContest, leaf: Int[Tensor, " m"], level: int
) -> tuple[Float64[Tensor, " m"], Float64[Tensor, " m"]]:
    """For every leaf, the probabilities that the one from its side is sampled, and that it goes on."""
    contest = leaf >> (level + 1)
    from_left = (leaf >> level) & 1 == 0
    wins = torch.where(from_left, contests.left[contest], 1 - contests.left[contest])
    settled = contests.settled[contest]
    return torch.where(settled, wins, 0.0), torch.where(settled, 1 - wins, wins)
