"""`gaussian_sketch`: k random combinations of the rows with normal coefficients, rebuilt from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Published
from wtacrs.estimators.core.counter_rng import Source
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.sketches.sketch import Sketch, dense_sketch, sketch_variance


@register("gaussian_sketch")
@dataclass(frozen=True, repr=False)
class GaussianSketch(Sketch):
    """Gaussian sketch: `Ĝ = (S dY)ᵀ (S X)`, the entries of `S [k, n]` independent N(0, 1/k).

    Source: Indyk & Motwani, "Approximate Nearest Neighbors: Towards Removing the Curse of Dimensionality", STOC 1998,
    as a random projection; for products of matrices Sarlós, "Improved Approximation Algorithms for Large Matrices via
    Random Projections", FOCS 2006.

    Mean: `E SᵀS = 1`, hence `EĜ = dYᵀ E(SᵀS) X = G`.

    Variance: as derived in `wtacrs.estimators.sketches.sketch`, with the fourth moment 3 of a normal number,

        Var Ĝ = (‖X‖²‖dY‖² + ‖G‖²) / k.

    It does not vanish at k = n.

    Bytes: k rows + 12, and n/8 for the bits of the support. MACs: `k·n·(d + m) + k·d·m`, more than the
    exact product has: a reference, not a saving of time.

    >>> import torch
    >>> x, dy = torch.randn(64, 8), torch.randn(64, 4)
    >>> kept = GaussianSketch(budget=16).compress(x, generator=torch.Generator().manual_seed(0))
    >>> kept.sketch.shape, GaussianSketch(budget=16).contract(kept, dy).shape
    (torch.Size([16, 8]), torch.Size([4, 8]))
    """

    published: ClassVar[Published] = Published("Indyk & Motwani 1998", unbiased=True)

    def apply(self, matrix: Float[Tensor, "n c"], k: int, source: Source) -> Float[Tensor, "k c"]:
        """`S @ matrix`, block by block."""
        return dense_sketch("gaussian", matrix, k, source)

    def macs(self, n: int, d: int, m: int) -> int:
        """`k·n·(d + m)` for both sketches, `k·d·m` for their product."""
        return rows_for(self.budget, n) * n * (d + m) + super().macs(n, d, m)

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`(‖X‖²‖dY‖² + ‖G‖²) / k` over the rows of positive score."""
        return sketch_variance(x, dy, scores, rows_for(self.budget, x.shape[0]), kurtosis=3.0)
