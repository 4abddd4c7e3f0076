"""`lbp_wht`: the Walsh–Hadamard coefficients of lowest sequency along the rows; biased, with variance zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64, Int64, Shaped, UInt8
from torch import Tensor

from wtacrs.estimators.core.base import Estimator, Published, Traits
from wtacrs.estimators.core.checks import check_length, check_matrix, check_rows_agree
from wtacrs.estimators.core.packing import pack_bits, unpack_bits
from wtacrs.estimators.core.products import product_dtype, working_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.core.seeded import BLOCK, mask_rows, scaled_rows
from wtacrs.estimators.core.sizing import check_budget, rows_for
from wtacrs.estimators.sketches.samples import check_tokens, in_samples
from wtacrs.estimators.sketches.srht import hadamard, padded_size


class SavedCoefficients(NamedTuple):
    """What is kept of `x [n, d]`: k rows per sample in the dtype of x, 4 bytes (fp64: 8), and one bit per row of x."""

    coefficients: Float[Tensor, "bk d"]
    scale: Float[Tensor, " 1"]
    support: UInt8[Tensor, " b"]
    shape_carrier: Float[Tensor, "n 0"]  # no bytes: carries n


@register("lbp_wht")
@dataclass(frozen=True, repr=False)
class LBPWHT(Estimator[SavedCoefficients]):
    """Low-pass Walsh–Hadamard projection: `Ĝ = Σ_s (W dY_s)ᵀ (W X_s)`, the k first rows of the Walsh basis as W.

    The rows are cut into samples s of `tokens` rows, in their order. The N rows of the orthonormal Walsh–Hadamard matrix,
    N the power of two from the length of a sample on (zero rows are added), are ordered by sequency, the number of times
    that they change sign: row 0 is constant, and W keeps the k smoothest. Rows of score 0 count as zeros.

    Source: Yang, Chiang, Li, Marculescu & Marculescu, "Efficient Low-rank Backpropagation for Vision Transformer
    Adaptation", NeurIPS 2023 (arXiv 2309.15275). There tokens lie on a grid, and the bases are products of a horizontal
    and a vertical one with a small sum of their sequencies; tokens of text, as here, lie in a line, where this is the
    same as the first k. There dX is found from the coefficients as well; here dX stays exact.

    Bias: nothing is drawn. With `Π = WᵀW`, a projection, and Π_s the samples side by side, `EĜ = dYᵀ Π_s X`, so that
    `EĜ − G = −dYᵀ (1 − Π_s) X`, and the variance is 0. What changes faster along the rows of both X and dY than the k-th
    basis row is lost in every step. At k = N the bias is 0.

    Bytes: k rows for every sample + 4 (fp64: 8), and n/8 for the bits of the support. MACs: `b·k·d·m` for b samples,
    beside `b·N log₂N·(d + m)` additions.

    Args:
        budget: float in (0, 1], the coefficients as a fraction of the rows of a sample, or int ≥ 1, their number.
        tokens: rows of a sample; None for all rows as one sample. A last, shorter sample is filled up with zeros.

    >>> import torch
    >>> x = torch.tensor([[1.0], [1.0], [5.0], [5.0]])
    >>> estimator = LBPWHT(budget=2)  # the coefficients of (1, 1, 1, 1)/2 and (1, 1, −1, −1)/2
    >>> bool(torch.allclose(estimator.contract(estimator.compress(x), torch.eye(4)), x))
    True
    """

    budget: int | float
    tokens: int | None = None

    published: ClassVar[Published] = Published("Yang et al. 2023, arXiv 2309.15275", unbiased=False)
    traits: ClassVar[Traits] = Traits(
        family="sketch",
        unbiased=False,
        deterministic=True,
        uses_scores=False,
        exact_at_full_budget=False,
        uses_support=True,
    )

    def __post_init__(self) -> None:
        check_budget(self.budget, self.name)
        check_tokens(self.tokens, self.name)

    def compress(
        self,
        x: Float[Tensor, "n d"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> SavedCoefficients:
        """`W X_s` of every sample."""
        del generator
        check_matrix("x", x)
        x, support = x.detach(), sampling_scores(x, scores) > 0
        rows, scale = scaled_rows(x, support)
        return SavedCoefficients(
            self._transformed(rows).to(x.dtype), scale, pack_bits(support), x.new_empty((x.shape[0], 0))
        )

    def contract(self, saved: SavedCoefficients, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """`Σ_s (W dY_s)ᵀ (W X_s)`."""
        check_length(saved.shape_carrier, dy)
        dtype = product_dtype(saved.coefficients, dy)
        working = working_dtype(dtype)
        rows, scale = scaled_rows(dy.to(working), unpack_bits(saved.support, dy.shape[0]))
        product = self._transformed(rows).T @ saved.coefficients.to(working)
        return (product * saved.scale.to(working) * scale).to(dtype)

    def macs(self, n: int, d: int, m: int) -> int:
        """`b·k·d·m` for b samples."""
        length = self.tokens or n
        return -(-n // length) * rows_for(self.budget, length) * d * m if n else 0

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """`dYᵀ Π_s X` over the rows of positive score, in fp64."""
        check_rows_agree(x, dy)
        support = sampling_scores(x, scores) > 0
        left, right = (self._transformed(mask_rows(a.double(), support)) for a in (dy, x))
        return left.T @ right

    def _transformed(self, matrix: Float[Tensor, "n c"]) -> Float[Tensor, "bk c"]:
        """W times every sample, for as many columns at a time as fit a block."""
        n, columns = matrix.shape
        if n == 0:
            return matrix
        samples = in_samples(matrix, self.tokens)
        count, length, _ = samples.shape
        size = padded_size(length)
        kept = sequency_order(size, rows_for(self.budget, length), matrix.device)
        step = max(BLOCK // (count * size), 1)
        parts = []
        for start in range(0, columns, step):
            piece = torch.nn.functional.pad(samples[..., start : start + step], (0, 0, 0, size - length))
            by_row = piece.transpose(0, 1).reshape(size, -1)
            chosen = hadamard(by_row).index_select(0, kept).reshape(len(kept), count, -1)
            parts.append(chosen.transpose(0, 1).reshape(count * len(kept), -1))
        found = torch.cat(parts, dim=1) if parts else matrix.new_zeros((count * len(kept), 0))
        return found / size**0.5


def sequency_order(size: int, count: int, device: torch.device) -> Int64[Tensor, " count"]:
    """Rows of Sylvester's Hadamard matrix of a size, a power of two, that change sign 0, 1, … count − 1 times.

    The row of sequency s is the bit reversal of the Gray code of s.

    >>> sequency_order(4, 4, torch.device("cpu")).tolist()
    [0, 2, 3, 1]
    """
    sequency = torch.arange(count, device=device)
    gray = sequency ^ (sequency >> 1)
    row = torch.zeros_like(gray)
    for bit in range(size.bit_length() - 1):
        row = (row << 1) | ((gray >> bit) & 1)
    return row
