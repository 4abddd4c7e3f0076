"""Fixed-size designs without replacement: k distinct rows, Horvitz–Thompson weights 1/π.

With I_i the indicator of inclusion, `c_i = I_i / π_i`. So `E c_i = 1` where π_i > 0, and with joint inclusion
probabilities π_ij = E I_i I_j

    Cov(c)_ij = π_ij / (π_i π_j) − 1,
    Var Ĝ = ½ Σ_ij (π_i π_j − π_ij) ‖Z_i/π_i − Z_j/π_j‖²        (Sen 1953; Yates & Grundy 1953; size fixed)

with `Z_i = y_i x_iᵀ`.

Beside r draws with replacement from p = π/r, Σ π = r: with `z_i = Z_i/π_i` those have the variance
`Σ π_i ‖z_i‖² − ‖G‖²/r`, the design has `Σ π_i ‖z_i‖² + Σ_{i≠j} π_ij ⟨z_i, z_j⟩ − ‖G‖²`. Entry by entry of dW: the
design is never above, for every G, exactly if for all real numbers z

    Σ_{i≠j} π_ij z_i z_j ≤ (1 − 1/r) (Σ π_i z_i)².

It is so if the mean of `Π_{i∈S} (t + z_i)`, a polynomial in t that begins with
`t^r + Σ π_i z_i t^(r−1) + ½ Σ_{i≠j} π_ij z_i z_j t^(r−2)`, has real roots only: this is Newton's inequality for its
first coefficients. And that it has if `f(u) = E Π_{i∈S} u_i` is *stable*, not 0 where all u_i have positive imaginary
parts: then no t of positive imaginary part is a root, nor its conjugate. `pivotal`, `conditional_poisson` and
`sampford` are proved to be stable, each in its place; rows that are certain, π = 1, change nothing. (Stability and
sampling: Brändén & Jonasson, "Negative dependence in sampling", Scandinavian Journal of Statistics 39, 2012.)

A design here only says which rows of the tail are drawn; the take-all set, the weights,
empty tails and fixed shapes are handled once.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from wtacrs.estimators.core.errors import InputError, NoClosedForm
from wtacrs.estimators.core.row_design import RowPlan
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.rows.inclusion import Inclusion, inclusion
from wtacrs.estimators.rows.row_estimator import RowEstimator, RowMoments, all_rows

ORDERS = ("random", "rows")


class TailDraw(NamedTuple):
    """Rows of the tail for the k slots, and what they were drawn with.

    Attributes:
        rows: those from `target.taken` on are used, and name distinct rows of the tail.
        probabilities: the exact inclusion probabilities of this design, 1 on the take-all set: weights are 1 over these.
    """

    rows: Int[Tensor, " k"]
    probabilities: Float64[Tensor, " n"]


class JointInclusion(NamedTuple):
    """How often rows are included together.

    Attributes:
        probabilities: π, those of the design itself.
        ratios: `π_ij/(π_i π_j)`, on the diagonal 1/π, 0 where a row is never included. Kept in place of π_ij, which
            underflows where two small probabilities meet.
    """

    probabilities: Float64[Tensor, " n"]
    ratios: Float64[Tensor, "n n"]

    @classmethod
    def of_ratios(cls, probabilities: Float64[Tensor, " n"], ratios: Float64[Tensor, "n n"]) -> JointInclusion:
        """From `π_ij/(π_i π_j)` of different rows that are included at all; what else is given is not used."""
        reached = probabilities > 0
        most = torch.finfo(torch.float64).max
        inverse = torch.where(reached, (1.0 / torch.where(reached, probabilities, 1.0)).clamp(max=most), 0.0)
        ratios = torch.where(reached.unsqueeze(1) & reached, ratios, 0.0)
        return cls(probabilities, torch.diagonal_scatter(ratios, inverse))

    @classmethod
    def of(cls, joint: Float64[Tensor, "n n"]) -> JointInclusion:
        """From π_ij, with π on the diagonal."""
        p = joint.diagonal()
        safe = torch.where(p > 0, p, 1.0)
        return cls.of_ratios(p, joint / safe.unsqueeze(1) / safe)

    @property
    def covariance(self) -> Float64[Tensor, "n n"]:
        """`π_ij/(π_i π_j) − 1` where π is not 0: that of the coefficients I/π."""
        reached = (self.probabilities > 0).to(torch.float64)
        return self.ratios - torch.outer(reached, reached)

    @property
    def matrix(self) -> Float64[Tensor, "n n"]:
        """π_ij, with π on the diagonal."""
        return self.probabilities.unsqueeze(1) * self.ratios * self.probabilities


@dataclass(frozen=True, repr=False)
class FixedSizeEstimator(RowEstimator):
    """Base of the fixed-size designs; a subclass defines `draw_tail`, and `joint` where it is known.

    A design whose inclusion probabilities are near to those asked for, but not the same, defines `included`.
    """

    @abstractmethod
    def draw_tail(self, target: Inclusion, k: int, uniforms: Float64[Tensor, " q"]) -> TailDraw:
        """Rows for the k slots, and the probabilities with which each row of all is included."""

    def draw_macs(self, n: int) -> int:
        """Multiplications in the matrix products of `draw_tail`."""
        return 0

    def macs(self, n: int, d: int, m: int) -> int:
        """`k·d·m`, and those of the draw if not all rows are kept."""
        return super().macs(n, d, m) + (0 if rows_for(self.budget, n) == n else self.draw_macs(n))

    def included(self, target: Inclusion, k: int) -> Float64[Tensor, " n"]:
        """The inclusion probabilities of `draw_tail`: those asked for."""
        return target.probabilities

    def joint(self, probabilities: Float64[Tensor, " n"], k: int) -> JointInclusion:
        """Joint inclusion probabilities π_ij where `probabilities` are asked for, with those of `included`.

        Raises:
            NoClosedForm: if they are not known.
        """
        raise NoClosedForm(
            f"{self!r} has no closed form for its joint inclusion probabilities; use enumeration or Monte Carlo"
        )

    def plan(self, scores: Float64[Tensor, " n"], uniforms: Float64[Tensor, " q"]) -> RowPlan:
        """The take-all set in the first slots, the drawn tail rows in the others."""
        n = scores.shape[0]
        k = rows_for(self.budget, n)
        if k == n:
            return all_rows(scores)
        target = inclusion(scores, k)
        slot = torch.arange(k, device=scores.device)
        taken = slot < target.taken
        used = taken | target.tail.any()
        drawn = self.draw_tail(target, k, uniforms)
        row = torch.where(taken, target.ranking.order[:k], drawn.rows)
        row = torch.where(used, row, target.ranking.order[:1])
        weight = 1.0 / torch.where(used, drawn.probabilities[row], 1.0)
        return RowPlan(row, torch.where(used, weight, 0.0))

    def weight_squares(self, scores: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """A row is included with probability π_i and then weighs 1/π_i: `1/π_i`."""
        k = rows_for(self.budget, scores.shape[0])
        if k == scores.shape[0]:
            return (scores > 0).to(torch.float64)
        p = self.included(inclusion(scores, k), k)
        return torch.where(p > 0, 1.0 / torch.where(p > 0, p, 1.0), 0.0)

    def moments(self, scores: Float64[Tensor, " n"]) -> RowMoments:
        """`E c = 1` and `Cov(c)_ij = π_ij/(π_i π_j) − 1` on the rows of positive score."""
        n = scores.shape[0]
        k = rows_for(self.budget, n)
        reached = (scores > 0).to(torch.float64)
        if k == n:
            return RowMoments(reached, scores.new_zeros((n, n)))
        return RowMoments(reached, self.joint(inclusion(scores, k).probabilities, k).covariance)


@dataclass(frozen=True, repr=False)
class OrderedEstimator(FixedSizeEstimator):
    """Base of the designs that walk the rows in an order: a random one, drawn anew each time, or that of the rows.

    Args:
        budget: as in `RowEstimator`.
        order: "random" or "rows".
    """

    order: str = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.order, str) or self.order not in ORDERS:
            raise InputError(f'{self.name}: order={self.order!r} must be "random" or "rows"')

    def keys(self, n: int) -> int:
        """With random order, one per row."""
        return n if self.order == "random" else 0

    def row_keys(self, n: int, uniforms: Float64[Tensor, " q"]) -> Float64[Tensor, " n"]:
        """Keys in [0, 1) by which the rows are ordered."""
        if self.order == "random":
            return uniforms[:n]
        return torch.arange(n, dtype=torch.float64, device=uniforms.device) / max(n, 1)


def tail_first(target: Inclusion, keys: Float64[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Rows in order of `keys` (in [0, 1)), those that are not in the tail behind all others."""
    return torch.where(target.tail, keys, 2.0).argsort(stable=True)


def in_slots(sampled: Bool[Tensor, " n"], taken: Int[Tensor, ""], k: int) -> Int[Tensor, " k"]:
    """The sampled rows in the slots from `taken` on, in order of their index."""
    place = taken + sampled.cumsum(0) - 1
    slots = torch.where(sampled, place.clamp(max=k), k)  # slot k takes what is not kept
    return torch.zeros(k + 1, dtype=torch.int64, device=sampled.device).scatter(0, slots, _rows(sampled))[:k]


def _rows(like: Tensor) -> Int[Tensor, " n"]:
    return torch.arange(like.shape[0], device=like.device)
