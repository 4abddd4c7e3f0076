"""A product of two matrices in int8 by unbiased rounding of both, and when it pays.

With whole numbers `x̂_ij` and `ŷ_ia` of |x̂|, |ŷ| ≤ 127, stochastic roundings of `x_ij` and of `y_ia / c_a` by
independent dither, `E Σ_i c_a ŷ_ia x̂_ij = Σ_i y_ia x_ij`. Numbers of a side are pairwise independent (see
`core.dither`) and the sides independent of each other, so that pairs i have uncorrelated errors and

    Var Σ_i c_a ŷ_ia x̂_ij = Σ_i [y_ia² V(x_ij) + x_ij² c_a² V(y_ia/c_a) + V(x_ij) c_a² V(y_ia/c_a)],   V(t) = f (1 − f),

f the fractional part of t. The sum of k products of int8 stays below 2³¹ for k ≤ 133,143.

The scale c_a of a column is its largest number over 127. Where few rows are much larger than the others they would set
it, and the others would be rounded to few levels: the `HEAVY` largest pairs are multiplied as they are.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float64, Int8, Shaped
from torch import Tensor

HEAVY = 64
"""Pairs that are multiplied as they are."""
LARGEST = 127
_MOST_ROWS = 2**17  # 127² of them stay below 2³¹
# Products below this many multiply-accumulates (n·d·m) are not sped up: measured, `wtacrs bench` measures it again
_LEAST_MACS = {"cpu": 2**26, "cuda": 2**33}
_LEAST_ROWS = 8 * HEAVY  # with fewer, the heavy pairs alone cost too large a share of the product

Precision = Literal["auto", "float", "int8"]
PRECISIONS = ("auto", "float", "int8")


def uses_int8(precision: Precision, dtype: torch.dtype, device: torch.device, n: int, d: int, m: int) -> bool:
    """Whether a product is taken in int8.

    "int8" always is, except in fp64, which is asked for where rounding is not wanted. "auto" is where it is faster: on a
    CPU that multiplies int8 by VNNI, on CUDA from compute capability 8.0, and for large products of 512 rows or more.

    Args:
        precision: as the estimator says.
        dtype: of the exact product.
        device: where the product is taken.
        n: rows that are summed over.
        d: columns of one side.
        m: columns of the other.
    """
    if precision == "float" or dtype == torch.float64:
        return False
    if precision == "int8":
        return True
    return n >= _LEAST_ROWS and n * d * m >= _LEAST_MACS.get(device.type, 2**62) and has_fast_int8(device)


def has_fast_int8(device: torch.device) -> bool:
    """Whether the device multiplies int8 several times faster than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(torch.cpu._is_vnni_supported())


def int8_product(y: Int8[Tensor, "k m"], x: Int8[Tensor, "k d"]) -> Shaped[Tensor, "m d"]:
    """`y.T @ x` in int32; in fp32 for more rows than int32 holds the sum of, and for none."""
    m, d = y.shape[1], x.shape[1]
    if x.device.type == "cuda":
        y, x = (_padded(t) for t in (y, x))
    product: Tensor | None = None
    for rows_y, rows_x in zip(y.split(_MOST_ROWS), x.split(_MOST_ROWS), strict=True):
        part = torch._int_mm(rows_y.T, rows_x)[:m, :d]
        product = part if product is None else part.to(torch.float32).add_(product)
    return x.new_zeros((m, d), dtype=torch.float32) if product is None else product


def _padded(numbers: Int8[Tensor, "k c"]) -> Int8[Tensor, "k8 c8"]:
    """Zeros to a multiple of 32 rows and columns, which the kernels of CUDA ask for."""
    k, c = numbers.shape
    return torch.nn.functional.pad(numbers, (0, -c % 32, 0, -k % 32))


def fraction_variance(places: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """`f (1 − f)` of the fractional parts."""
    f = places - places.floor()
    return f * (1 - f)


def mean_fraction_variance(
    places: Float64[Tensor, "*shape"], width: Float64[Tensor, "*shape"]
) -> Float64[Tensor, "*shape"]:
    """The mean of `f (1 − f)` for places that are uniform within ± width/2 of these, width > 0.

    The integral from 0 to t is `⌊t⌋/6 + f²/2 − f³/3`.
    """

    def integral(t: Tensor) -> Tensor:
        f = t - t.floor()
        return t.floor() / 6 + f.square() / 2 - f**3 / 3

    return (integral(places + width / 2) - integral(places - width / 2)) / width
