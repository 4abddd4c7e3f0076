"""`fp8`: every row in 8-bit floating point (e4m3), by stochastic rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from wtacrs.estimators.core.base import Published
from wtacrs.estimators.core.checks import check_length
from wtacrs.estimators.core.packing import round_up
from wtacrs.estimators.core.products import product_dtype, working_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.rounding.rounding_estimator import RoundingEstimator

_LARGEST = 448.0
_LEAST_EXPONENT = -6
_MANTISSA_BITS = 3


class SavedFp8(NamedTuple):
    """n rows of a byte a number, and 2 bytes (fp64: 8) per scale."""

    values: Float[Tensor, "n d"]
    scales: Float[Tensor, " n"]
    shape_carrier: Float[Tensor, "n 0"]  # no bytes: carries n and the dtype of x


@register("fp8")
@dataclass(frozen=True, repr=False)
class FP8(RoundingEstimator[SavedFp8]):
    """Keep every row in fp8: `Ĝ = dYᵀ Q(X)`.

    Source of the format: Micikevicius et al., "FP8 Formats for Deep Learning", 2022, arXiv 2209.05433: e4m3, 3 bits
    of mantissa, exponents from −6 up, largest number 448. A row is divided by its scale max|x|/448, kept in bf16 and
    rounded up. Neighbouring numbers of the format around v lie 2^(e−3) apart, e the exponent of v, at least −6.
    Scores say only which rows count: those of score 0 are stored as zeros.

    Mean: with δ that distance and u uniform, `⌊v/δ + u⌋ δ` is one of the two neighbours of v and has mean v, so
    `EĜ = G`. Variance: errors are independent, each δ² f (1 − f) with f the fractional part of v/δ; with scale_i,

        Var Ĝ = Σ_i ‖y_i‖² scale_i² Σ_j δ_ij² f_ij (1 − f_ij).

    The distance grows with the number: large numbers are coarser than on the even grid of `stochastic_rounding`,
    small ones finer.

    Bytes: n·(d + 2). MACs: `n·d·m`, as exact, beside the scaling.

    >>> import torch
    >>> from wtacrs.estimators import saved_bytes
    >>> saved_bytes(FP8().compress(torch.randn(10, 128)))
    1300
    """

    published: ClassVar[Published] = Published(
        "Micikevicius et al. 2022, arXiv 2209.05433",
        unbiased=False,
        note="the format is published with rounding to the nearest number, here numbers are rounded at random",
    )

    def rounded(self, x: Float[Tensor, "n d"], uniforms: Float[Tensor, "n d"]) -> SavedFp8:
        """Scale and round."""
        scaled, scales = _scaled(x)
        distance = _distance(scaled)
        rounded = ((scaled / distance + uniforms).floor() * distance).clamp(-_LARGEST, _LARGEST)
        return SavedFp8(rounded.to(torch.float8_e4m3fn), scales, x.new_empty((x.shape[0], 0)))

    def contract(self, saved: SavedFp8, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """`dYᵀ Q(X)`."""
        check_length(saved.shape_carrier, dy)
        dtype = product_dtype(saved.shape_carrier, dy)
        working = working_dtype(dtype)
        rows = saved.values.to(working) * saved.scales.to(working)[:, None]
        return dy.to(dtype).T @ rows.to(dtype)

    def places(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The scaled numbers in units of the distance around them."""
        scaled, _ = _scaled(x)
        return scaled / _distance(scaled)

    def errors(self, x: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
        """`scale_i² Σ_j δ² f (1 − f)`."""
        scaled, scales = _scaled(x)
        distance = _distance(scaled.double())
        place = scaled.double() / distance
        fraction = place - place.floor()
        return (distance.square() * fraction * (1 - fraction)).sum(1) * scales.double().square()


def _scaled(x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    """Rows within ±448, and their scales; a row of zeros has scale 0."""
    working = working_dtype(x.dtype)
    largest = x.abs().amax(1) if x.shape[1] else x.new_zeros(x.shape[0])
    scales = largest.to(working) / _LARGEST
    scales = scales if x.dtype == torch.float64 else round_up(scales)
    divisor = scales.to(working)[:, None]
    return x.to(working) / torch.where(divisor > 0, divisor, 1.0), scales


def _distance(v: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Distance of the neighbouring e4m3 numbers around v."""
    exponent = (torch.frexp(v).exponent - 1).clamp(min=_LEAST_EXPONENT)
    return torch.ldexp(torch.ones_like(v), torch.where(v == 0, _LEAST_EXPONENT, exponent) - _MANTISSA_BITS)
