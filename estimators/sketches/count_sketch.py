"""`count_sketch`: every row is added with a random sign to one of k buckets, rebuilt from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Published
from wtacrs.estimators.core.counter_rng import Source
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.sketches.sketch import ENTRIES, PLACES, Sketch, sketch_variance


@register("count_sketch")
@dataclass(frozen=True, repr=False)
class CountSketch(Sketch):
    """Count-sketch: `Ĝ = (S dY)ᵀ (S X)`, column i of `S [k, n]` holding one entry ε_i = ±1 in a random place h_i.

    Source: Charikar, Chen & Farach-Colton, "Finding Frequent Items in Data Streams", ICALP 2002; for matrices
    Clarkson & Woodruff, "Low Rank Approximation and Regression in Input Sparsity Time", STOC 2013. Places and
    signs are independent over the rows.

    Mean: `Ĝ = G + Σ_(i≠j) [h_i = h_j] ε_i ε_j y_i x_jᵀ`, and `E ε_i ε_j = 0`.

    Variance: of the products of two such terms only (i, j) with itself and with (j, i) have a mean, and two rows
    meet with probability 1/k. With `A = X Xᵀ`, `B = dY dYᵀ`:

        Var Ĝ = (1/k) Σ_(i≠j) (B_ii A_jj + B_ij A_ij) = (‖X‖²‖dY‖² + ‖G‖² − 2 Σ w_i²) / k,

    the same as for k rows of signs, at 1/k of their cost.

    Bytes: k rows + 12, and n/8 for the bits of the support. MACs: `k·d·m`, beside `n·(d + m)`
    additions. On CUDA their order is not fixed: two runs may differ by rounding.

    >>> import torch
    >>> x = torch.eye(3)
    >>> kept = CountSketch(budget=2).compress(x, generator=torch.Generator().manual_seed(0))
    >>> kept.sketch.abs().sum(0)  # every row once
    tensor([1., 1., 1.])
    """

    published: ClassVar[Published] = Published("Charikar, Chen & Farach-Colton 2002", unbiased=True)

    def apply(self, matrix: Float[Tensor, "n c"], k: int, source: Source) -> Float[Tensor, "k c"]:
        """Signed rows, added bucket by bucket."""
        counters = torch.arange(matrix.shape[0], device=matrix.device)
        places = source.integers(PLACES, counters, k)
        signed = matrix * source.signs(ENTRIES, counters).to(matrix.dtype).unsqueeze(1)
        return matrix.new_zeros((k, matrix.shape[1])).index_add(0, places, signed)

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`(‖X‖²‖dY‖² + ‖G‖² − 2 Σ w²) / k` over the rows of positive score."""
        return sketch_variance(x, dy, scores, rows_for(self.budget, x.shape[0]), kurtosis=1.0)
