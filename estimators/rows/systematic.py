"""`systematic`: fixed-size sampling with probability proportional to size, from one uniform number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from wtacrs.estimators.core.base import Published, Traits
from wtacrs.estimators.core.checks import check_choice, check_length
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.row_design import RowPlan
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.kernels.choice import ROW_SETS, row_kernels
from wtacrs.estimators.rows.fixed_size import JointInclusion, OrderedEstimator, TailDraw, tail_first
from wtacrs.estimators.rows.inclusion import Inclusion, inclusion
from wtacrs.estimators.rows.row_estimator import SavedRows

_MULTIPLIED = (torch.float32, torch.bfloat16)  # by the kernel; fp16 sums would need a wider result


@register("systematic")
@dataclass(frozen=True, repr=False)
class Systematic(OrderedEstimator):
    """Systematic sampling: rows as intervals of length π laid end to end, hit by the points u, u + 1, u + 2, …

    Source: Madow, "On the Theory of Systematic Sampling, II", Annals of Mathematical Statistics 20, 1949;
    inclusion probabilities as in `wtacrs.estimators.rows.inclusion`.

    Mean: the points have distance 1 and u is uniform on [0, 1), so an interval of length π_i ≤ 1 is hit at most
    once, and with probability π_i. With weight 1/π_i, `EĜ = Σ_i π_i Z_i/π_i = G`. The lengths sum to k: exactly k
    points, k distinct rows.

    Variance: as for every fixed-size design (see `wtacrs.estimators.rows.fixed_size`). With `order="rows"` the joint
    inclusion probabilities are exact: between two neighbouring fractional parts of the cumulated π the sample does
    not change, so π_ij sums the lengths of the cells whose sample holds i and j. Many are 0: rows that resemble
    their neighbours are spread well, but a periodic order can be unlucky, and worse than sampling with
    replacement. `order="random"` shuffles the rows first; averaged over all orders there is no closed form.
    Numerically it matches pivotal sampling; unlike for that, no proof is known that it is never above `wta_crs`.

    Kernels: "plain" is PyTorch alone. "triton" has kernels for CUDA, `pip install "wtacrs[triton]"`: one that finds π and
    draws, up to 16,384 rows, and one that multiplies without a gathered copy of dY, for rows and dY that are both fp32 or
    both bf16; what is not so is left to PyTorch. The law is the same (see `wtacrs.estimators.kernels.triton_rows`).

    Bytes: k rows + 8 per row (index and weight). MACs: `k·d·m`.

    Args:
        budget: as in `RowEstimator`.
        order: as in `OrderedEstimator`.
        kernels: "plain" or "triton".

    >>> import torch
    >>> x = torch.diag(torch.tensor([8.0, 4.0, 1.0, 1.0, 1.0, 1.0]))
    >>> kept = Systematic(budget=4).compress(x, generator=torch.Generator().manual_seed(0))
    >>> kept.indices[:2], kept.weights, len(set(kept.indices.tolist()))
    (tensor([0, 1], dtype=torch.int32), tensor([1., 1., 2., 2.]), 4)
    """

    kernels: str = "plain"

    published: ClassVar[Published] = Published("Madow 1949", unbiased=True)
    traits: ClassVar[Traits] = Traits(
        family="rows", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("kernels", self.kernels, ROW_SETS, self.name)

    def plan(self, scores: Float64[Tensor, " n"], uniforms: Float64[Tensor, " q"]) -> RowPlan:
        """As of every fixed-size design; by one kernel where that is asked for."""
        n = scores.shape[0]
        k, kernels = rows_for(self.budget, n), row_kernels(self.kernels, scores)
        if kernels is None or k == n or n > kernels.MOST_ROWS:
            return super().plan(scores, uniforms)
        order = self.row_keys(n, uniforms).argsort(stable=True)
        return RowPlan(*kernels.systematic_draw(scores, order, uniforms[-1:], k))

    def contract(self, saved: SavedRows, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """As of every row design; without a gathered copy of dY where that is asked for."""
        kernels = row_kernels(self.kernels, dy)
        if kernels is None or saved.rows.dtype != dy.dtype or dy.dtype not in _MULTIPLIED:
            return super().contract(saved, dy)
        check_length(saved.shape_carrier, dy)
        product: Tensor = kernels.gathered_product(*saved[:3], dy)
        return product

    def uniforms(self, n: int) -> int:
        """One, and with random order one key per row before it."""
        return 1 + self.keys(n)

    def draw_tail(self, target: Inclusion, k: int, uniforms: Float64[Tensor, " q"]) -> TailDraw:
        """Where the cumulated π of the tail passes each point."""
        rows = tail_first(target, self.row_keys(target.tail.shape[0], uniforms))
        length = torch.where(target.tail, target.probabilities, 0.0)[rows].cumsum(0)
        slot = torch.arange(k, device=rows.device) - target.taken
        # the lengths sum to the number of points but for rounding
        length = length * ((k - target.taken) / torch.where(length[-1] > 0, length[-1], 1.0))
        place = torch.searchsorted(length, uniforms[-1:] + slot, right=True)
        # rounding must neither hit a row twice, nor leave the tail
        place = torch.where(slot >= 0, place - slot, 0).cummax(0).values + slot
        last = target.tail.sum() - (k - target.taken) + slot
        return TailDraw(rows[torch.minimum(place, last).clamp(min=0)], target.probabilities)

    def cuts(self, scores: Float64[Tensor, " n"], chosen: Float64[Tensor, " j"]) -> Float64[Tensor, " c"]:
        """The fractional parts of the cumulated π, in the order that the keys have fixed."""
        n = scores.shape[0]
        target = inclusion(scores, rows_for(self.budget, n))
        rows = tail_first(target, self.row_keys(n, chosen))
        return _fractions(torch.where(target.tail, target.probabilities, 0.0)[rows].cumsum(0))

    def joint(self, probabilities: Float64[Tensor, " n"], k: int) -> JointInclusion:
        """π_ij of the fixed order, O(n²·cells) time.

        Raises:
            NoClosedForm: with random order.
        """
        if self.order == "random":
            return super().joint(probabilities, k)
        ends = torch.where(probabilities < 1, probabilities, 0.0).cumsum(0)
        edges = torch.cat([ends.new_zeros(1), _fractions(ends), ends.new_ones(1)])
        middle, width = (edges[1:] + edges[:-1]) / 2, edges[1:] - edges[:-1]
        # row i is hit if a point u + j lies between the end before it and its own
        before = torch.cat([ends.new_zeros(1), ends[:-1]])
        hit = (ends[:, None] - middle).ceil() - (before[:, None] - middle).ceil() > 0
        hit = (hit | (probabilities == 1)[:, None]).to(torch.float64)
        return JointInclusion.of((hit * width) @ hit.T)


def _fractions(ends: Float64[Tensor, " n"]) -> Float64[Tensor, " c"]:
    return (ends - ends.floor()).sort().values
