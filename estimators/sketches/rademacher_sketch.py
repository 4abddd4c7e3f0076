"""`rademacher_sketch`: k random combinations of the rows with coefficients ±1, rebuilt from a seed."""

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


@register("rademacher_sketch")
@dataclass(frozen=True, repr=False)
class RademacherSketch(Sketch):
    """Rademacher sketch: `Ĝ = (S dY)ᵀ (S X)`, the entries of `S [k, n]` independent ±1/√k.

    Source: Achlioptas, "Database-friendly Random Projections", Journal of Computer and System Sciences 66, 2003.

    Mean: `E SᵀS = 1` (its diagonal is 1 even without the mean), hence `EĜ = dYᵀ E(SᵀS) X = G`.

    Variance: as derived in `wtacrs.estimators.sketches.sketch`, with the fourth moment 1 of a sign,

        Var Ĝ = (‖X‖²‖dY‖² + ‖G‖² − 2 Σ w_i²) / k,

    the least of all sketches with independent entries. It does not vanish at k = n; one row alone is exact.

    Bytes: k rows + 12, and n/8 for the bits of the support. MACs: `k·n·(d + m) + k·d·m`, the former
    by ±1: as matrix products they run on the same units.

    >>> import torch
    >>> x, dy = torch.randn(1, 8), torch.randn(1, 4)
    >>> estimator = RademacherSketch(budget=1)
    >>> bool(torch.allclose(estimator.contract(estimator.compress(x), dy), dy.T @ x))
    True
    """

    published: ClassVar[Published] = Published("Achlioptas 2003", unbiased=True)

    def apply(self, matrix: Float[Tensor, "n c"], k: int, source: Source) -> Float[Tensor, "k c"]:
        """`S @ matrix`, block by block."""
        return dense_sketch("rademacher", matrix, k, source)

    def macs(self, n: int, d: int, m: int) -> int:
        """`k·n·(d + m)` for both sketches, `k·d·m` for their product."""
        return rows_for(self.budget, n) * n * (d + m) + super().macs(n, d, m)

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`(‖X‖²‖dY‖² + ‖G‖² − 2 Σ w²) / k` over the rows of positive score."""
        return sketch_variance(x, dy, scores, rows_for(self.budget, x.shape[0]), kurtosis=1.0)
