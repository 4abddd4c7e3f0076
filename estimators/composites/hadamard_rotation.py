"""`hadamard_rotation`: any estimator on features that a fixed orthogonal transform has made alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Estimator, Published, Traits
from wtacrs.estimators.core.checks import check_matrix, check_rows_agree
from wtacrs.estimators.core.counter_rng import CounterStream
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.products import working_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.sketches.srht import hadamard

_LARGEST_FACTOR = 32


_BLOCK_NUMBERS = 2**25


@register("hadamard_rotation")
@dataclass(frozen=True, repr=False)
class HadamardRotation(Estimator[Any]):
    """`Ĝ = Ĝ_rows(X R, dY) Rᵀ` with a fixed orthogonal R `[d, d]`, so that no feature stands out.

    Source: the randomised Hadamard transform of Ailon & Chazelle 2006, put before rounding as in Suresh, Yu, Kumar &
    McMahan, "Distributed Mean Estimation with Limited Communication", ICML 2017 (arXiv 1611.00429). There the signs
    are drawn, here they are fixed: what is stored is rounded without bias by itself, so R needs no mean.

    `R = D₁ H₁ D₂ H₂`: signs D₁, the orthonormal Hadamard transform H₁ of the first `b` features, b the largest power
    of two up to d, signs D₂, and H₂ of the last b features (only H₁ if b = d). A rotated feature is a sum of many
    under signs, so rows look Gaussian, whatever outliers they had: the largest of d numbers falls from what heavy
    tails make it to about `√(2 ln d)` standard deviations, and with it the step of every rounding.

    Mean: `E Ĝ_rows = dYᵀ X R` gives `EĜ = dYᵀ X R Rᵀ = G`. In general it is the inner mean times Rᵀ.

    Variance: R preserves the Frobenius norm, so it is that of the inner estimator on `X R`. Row norms and all pair
    norms are those of X: a row design by itself neither gains nor loses.

    Bytes: those of the inner estimator; R is not stored. MACs: those of the inner one, and
    `(n + m)·b·Σf` for each of H₁ and H₂, where the factors f ≤ 32 have the product b.

    Args:
        rows: any estimator; if it is biased, so is the result.

    >>> import torch
    >>> from wtacrs.estimators import make
    >>> x, dy = torch.randn(64, 48), torch.randn(64, 4)
    >>> x[:, 0] *= 100  # one feature stands out and sets the step of all
    >>> plain, rotated = make("stochastic_rounding(bits=4)"), make("hadamard_rotation(rows=stochastic_rounding(bits=4))")
    >>> bool(rotated.variance(x, dy) < 0.5 * plain.variance(x, dy))
    True
    """

    rows: Estimator

    random_part: ClassVar[str | None] = "rows"
    published: ClassVar[Published] = Published("Suresh et al. 2017, arXiv 1611.00429", unbiased=True)
    traits: ClassVar[Traits] = Traits(
        family="composite", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=False
    )

    def __post_init__(self) -> None:
        if not isinstance(self.rows, Estimator):
            raise InputError(
                f"hadamard_rotation: rows={self.rows!r} must be an estimator such as stochastic_rounding(bits=4)"
            )

    def compress(
        self,
        x: Float[Tensor, "n d"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Any:
        """What the inner estimator keeps of `X R`."""
        check_matrix("x", x)
        return self.rows.compress(_rotated(x.detach()), scores=scores, generator=generator)

    def contract(self, saved: Any, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """The inner estimate, rotated back."""
        inner = self.rows.contract(saved, dy)
        return rotate_back(inner.to(working_dtype(inner.dtype))).to(inner.dtype)

    def macs(self, n: int, d: int, m: int) -> int:
        """Those of the inner estimator, and of the small dense transforms of n rows and of m."""
        block = largest_block(d)
        one = block * sum(factors(block))
        return self.rows.macs(n, d, m) + (n + m) * one * (1 if block == d else 2)

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """The inner expectation, rotated back."""
        check_rows_agree(x, dy)
        return rotate_back(self.rows.expectation(rotate(x.double()), dy, scores=scores))

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """That of the inner estimator on `X R`.

        Raises:
            NoClosedForm: if the inner estimator has none.
        """
        check_rows_agree(x, dy)
        return self.rows.variance(_rotated(x), dy, scores=scores)


def _rotated(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """`x @ R` in the dtype of x, worked out in single precision or better, a block of rows of a large x at a time."""
    working = working_dtype(x.dtype)
    if x.numel() <= _BLOCK_NUMBERS:
        return rotate(x.to(working)).to(x.dtype)
    blocks = x.split(max(_BLOCK_NUMBERS // x.shape[1], 1))
    return torch.cat([rotate(rows.to(working)).to(x.dtype) for rows in blocks])


def rotate(matrix: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """`matrix @ R`, in the precision of the matrix."""
    d = matrix.shape[1]
    block = largest_block(d)
    first, second = _signs(d, matrix)
    matrix = matrix * first
    matrix = torch.cat([_transform(matrix[:, :block]), matrix[:, block:]], dim=1)
    if block == d:
        return matrix
    matrix = matrix * second
    return torch.cat([matrix[:, : d - block], _transform(matrix[:, d - block :])], dim=1)


def rotate_back(matrix: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
    """`matrix @ Rᵀ`: the steps of `rotate` backwards, each its own inverse."""
    d = matrix.shape[1]
    block = largest_block(d)
    first, second = _signs(d, matrix)
    if block < d:
        matrix = torch.cat([matrix[:, : d - block], _transform(matrix[:, d - block :])], dim=1) * second
    return torch.cat([_transform(matrix[:, :block]), matrix[:, block:]], dim=1) * first


def largest_block(d: int) -> int:
    """The largest power of two up to d; 0 for d = 0."""
    return 1 << (d.bit_length() - 1) if d else 0


def factors(block: int) -> list[int]:
    """Powers of two up to 32 whose product is the block: the sizes of the dense transforms it is made of.

    >>> factors(512), factors(1)
    ([32, 16], [])
    """
    found = []
    while block > 1:
        found.append(min(block, _LARGEST_FACTOR))
        block //= found[-1]
    return found


def _transform(matrix: Float[Tensor, "n b"]) -> Float[Tensor, "n b"]:
    """The orthonormal Hadamard transform of every row: a Kronecker product of small dense ones."""
    n, block = matrix.shape
    behind = block
    for size in factors(block):
        behind //= size
        small = hadamard(torch.eye(size, dtype=matrix.dtype, device=matrix.device)) / size**0.5
        # with nothing behind, the first form would be many products with a vector, which are slow
        matrix = small @ matrix.reshape(-1, size, behind) if behind > 1 else matrix.reshape(-1, size) @ small
    return matrix.reshape(n, block)


def _signs(d: int, like: Tensor) -> Float[Tensor, "2 d"]:
    fixed = CounterStream(torch.zeros(1, dtype=torch.int64, device=like.device))
    return fixed.signs(0, torch.arange(2 * d, device=like.device)).reshape(2, d).to(like.dtype)
