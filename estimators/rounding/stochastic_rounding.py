"""`stochastic_rounding`: every row, in 8, 4 or 2 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from wtacrs.estimators.core.base import Published
from wtacrs.estimators.core.checks import check_length
from wtacrs.estimators.core.packing import Packed, check_bits, grid_places, pack, rounding_variance, unpack
from wtacrs.estimators.core.products import product_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.rounding.rounding_estimator import RoundingEstimator


class SavedRounded(NamedTuple):
    """n packed rows and 2 bytes per step."""

    codes: UInt8[Tensor, "n bytes"]
    steps: Float[Tensor, "n groups"]
    shape_carrier: Float[Tensor, "n 0"]  # no bytes: carry n, d and the dtype of x
    columns: Float[Tensor, "d 0"]


@register("stochastic_rounding")
@dataclass(frozen=True, repr=False)
class StochasticRounding(RoundingEstimator[SavedRounded]):
    """Keep every row with few bits a number: `Ĝ = dYᵀ Q(X)`.

    Source: ActNN (Chen et al., ICML 2021, arXiv 2104.14129) for activations; the grid is that of
    `wtacrs.estimators.core.packing`. Scores say only which rows count: those of score 0 are stored as zeros.

    Mean: `E Q(x_ij) = x_ij` for every number, so `EĜ = G`.

    Variance: the errors of different numbers are independent, with variance Δ² f_ij (1 − f_ij), f the fractional
    part of the place on the grid. Entry (a, j) of Ĝ has `Σ_i y_ia² Var Q(x_ij)`, so in all

        Var Ĝ = Σ_i ‖y_i‖² Σ_j Δ² f_ij (1 − f_ij).

    Bytes: n·(bits·d/8 + 2 per group). MACs: `n·d·m`, as exact, beside the unpacking.

    Args:
        bits: 8, 4 or 2.
        group: numbers that share a step; None for a whole row.

    >>> import torch
    >>> from wtacrs.estimators import saved_bytes
    >>> saved_bytes(StochasticRounding(bits=4, group=64).compress(torch.randn(10, 128)))
    680
    """

    published: ClassVar[Published] = Published("Gupta et al. 2015, arXiv 1502.02551", unbiased=True)

    bits: int = 8
    group: int | None = None

    def __post_init__(self) -> None:
        check_bits(self.bits, self.group, self.name)

    def rounded(self, x: Float[Tensor, "n d"], uniforms: Float[Tensor, "n d"]) -> SavedRounded:
        """Round and pack."""
        packed = pack(x, self.bits, self.group, uniforms)
        return SavedRounded(*packed, x.new_empty((x.shape[0], 0)), x.new_empty((x.shape[1], 0)))

    def contract(self, saved: SavedRounded, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """`dYᵀ Q(X)`."""
        check_length(saved.shape_carrier, dy)
        dtype = product_dtype(saved.columns, dy)
        packed, d = Packed(saved.codes, saved.steps), saved.columns.shape[0]
        return dy.to(dtype).T @ unpack(packed, d, self.bits, self.group, dtype)

    def places(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Places on the grid."""
        return grid_places(x, self.bits, self.group)

    def errors(self, x: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
        """`Σ_j Δ² f_ij (1 − f_ij)`."""
        return rounding_variance(x, self.bits, self.group, dithered=False)
