"""`srht`: random signs, a Hadamard transform over the rows, and k of its rows; rebuilt from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Published
from wtacrs.estimators.core.counter_rng import Source
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.seeded import BLOCK
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.sketches.sketch import ENTRIES, PLACES, Sketch, sketch_variance


@register("srht")
@dataclass(frozen=True, repr=False)
class SRHT(Sketch):
    """Subsampled randomised Hadamard transform: `S = √(N/k) P H D`.

    D holds one random sign per row, H is the orthonormal Hadamard matrix of size N, the power of two from n on
    (zero rows are added), and P takes k distinct of the N transformed rows, every choice equally likely.

    Source: Ailon & Chazelle, "Approximate Nearest Neighbors and the Fast Johnson–Lindenstrauss Transform", STOC
    2006; Tropp, "Improved Analysis of the Subsampled Randomized Hadamard Transform", 2011. The rescale of Ĝ is
    N/k, not its square.

    Mean: given the signs, a row is taken with probability k/N and weighs N/k, so the mean of Ĝ is
    `(H D dY)ᵀ (H D X) = dYᵀ X`, whatever the signs.

    Variance: given the signs, with x̂_r and ŷ_r the transformed rows and `v_r = ‖x̂_r‖‖ŷ_r‖`, it is that of uniform
    sampling without replacement, `N²(1 − k/N)/k · (Σ v_r² − ‖G‖²/N)/(N − 1)`, and the mean does not depend on
    the signs. √N x̂_r is a sum of the rows under independent signs, so by the fourth moment of
    `wtacrs.estimators.sketches.sketch` (κ = 1) `E v_r² = (‖X‖²‖dY‖² + 2‖G‖² − 2 Σ w_i²)/N²` for every r. Together

        Var Ĝ = (N − k)/(N − 1) · (‖X‖²‖dY‖² + ‖G‖² − 2 Σ w_i²) / k,

    that of k rows of signs times `(N − k)/(N − 1)`. It vanishes at k = N: at k = n if n is a power of two.

    Bytes: k rows + 12, and n/8 for the bits of the support. MACs: `k·d·m`, beside `N log₂N·(d + m)`
    additions.

    >>> import torch
    >>> x, dy = torch.randn(8, 3), torch.randn(8, 2)
    >>> whole = SRHT(budget=8)
    >>> bool(torch.allclose(whole.contract(whole.compress(x), dy), dy.T @ x, atol=1e-5))
    True
    """

    published: ClassVar[Published] = Published("Ailon & Chazelle 2006", unbiased=True)

    def apply(self, matrix: Float[Tensor, "n c"], k: int, source: Source) -> Float[Tensor, "k c"]:
        """Signs, transform and choice, for as many columns at a time as fit a block."""
        n, columns = matrix.shape
        if n == 0:
            return matrix
        size = padded_size(n)
        signs = source.signs(ENTRIES, torch.arange(n, device=matrix.device)).to(matrix.dtype)
        taken = source.subset(PLACES, torch.ones(size, dtype=torch.bool, device=matrix.device), k)
        step = max(BLOCK // size, 1)
        parts = [
            hadamard(torch.nn.functional.pad(matrix[:, j : j + step] * signs.unsqueeze(1), (0, 0, 0, size - n)))[
                taken
            ]
            for j in range(0, columns, step)
        ]
        return torch.cat(parts, dim=1) / k**0.5 if parts else matrix.new_zeros((k, 0))

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`(N − k)/(N − 1) · (‖X‖²‖dY‖² + ‖G‖² − 2 Σ w²) / k` over the rows of positive score."""
        k, size = rows_for(self.budget, x.shape[0]), padded_size(x.shape[0])
        left = (size - k) / max(size - 1, 1)
        return left * sketch_variance(x, dy, scores, k, kurtosis=1.0)


def padded_size(n: int) -> int:
    """The least power of two from n on."""
    return 1 << max(n - 1, 0).bit_length()


def hadamard(matrix: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """The product with the Hadamard matrix of entries ±1 (Sylvester's order), n a power of two."""
    n, columns = matrix.shape
    half = 1
    while half < n:
        pairs = matrix.reshape(n // (2 * half), 2, half, columns)
        even, odd = pairs[:, 0], pairs[:, 1]
        matrix = torch.stack([even + odd, even - odd], dim=1).reshape(n, columns)
        half *= 2
    return matrix
