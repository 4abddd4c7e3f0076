"""The exact product: its dtype, the dtype to compute in, and its value in double precision.

Moments are stated in fp64 whatever the dtype of the rows. A double-precision copy of all of x and dy would be four
times their size in bf16: 4 GiB for n = 65,536 and d = m = 4,096. `double_product` converts a block of rows at a time.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

_BLOCK_BYTES = 256 * 2**20


def product_dtype(x: Tensor, dy: Tensor) -> torch.dtype:
    """The dtype in which the exact product `dy.T @ x` would be returned."""
    return torch.promote_types(x.dtype, dy.dtype)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype to compute in: fp32 for fp32 and shorter, else fp64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def block_rows(*widths: int) -> int:
    """Rows to a block, so that its double-precision copies of these widths take 256 MiB."""
    return max(_BLOCK_BYTES // (8 * max(sum(widths), 1)), 128)


def double_product(
    x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], weights: Shaped[Tensor, " n"] | None = None
) -> Float64[Tensor, "m d"]:
    """`Σ_i weights_i y_i x_iᵀ` in fp64; weights 1 if None.

    Memory beside x and dy: the product and one block of 256 MiB.
    """
    block = block_rows(x.shape[1], dy.shape[1])
    if x.shape[0] <= block:
        return _block(x, dy, weights)
    product = x.new_zeros((dy.shape[1], x.shape[1]), dtype=torch.float64)
    for start in range(0, x.shape[0], block):
        rows = slice(start, start + block)
        product += _block(x[rows], dy[rows], None if weights is None else weights[rows])
    return product


def _block(x: Tensor, dy: Tensor, weights: Tensor | None) -> Tensor:
    left = dy.double()
    return (left if weights is None else left * weights.double().unsqueeze(1)).T @ x.double()
