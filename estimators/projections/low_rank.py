"""`low_rank`: the input projected on its principal directions; biased, with variance zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Estimator, Published, Traits
from wtacrs.estimators.core.checks import check_matrix, check_rows_agree
from wtacrs.estimators.core.products import double_product, product_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.core.seeded import product_with, scaled_rows
from wtacrs.estimators.projections.subspace import (
    check_rank,
    principal_directions,
    rank_for,
    search_macs,
)


class SavedLowRank(NamedTuple):
    """What is kept of `x [n, d]`: r numbers per row and r directions in the dtype of x, and 4 bytes (fp64: 8)."""

    coefficients: Float[Tensor, "n r"]
    directions: Float[Tensor, "d r"]
    scale: Float[Tensor, " 1"]


@register("low_rank")
@dataclass(frozen=True, repr=False)
class LowRank(Estimator[SavedLowRank]):
    """Low rank only: `Ĝ = dYᵀ (X V) Vᵀ` with r orthonormal principal directions V of the rows of x.

    Source: the truncated decomposition of Eckart & Young 1936; subspace iteration as in Halko, Martinsson & Tropp,
    "Finding Structure with Randomness", 2011 (arXiv 0909.4061), here with a fixed start. What PRAC without its
    random part would do.

    Bias: nothing is drawn, so `EĜ − G = −G (1 − V Vᵀ)` and the variance is 0. The same directions are dropped in
    every step: the error does not average out.

    Bytes: `n·r + d·r` numbers + 4. MACs: `6 n·d·r` for V and `n·d·r + n·m·r + m·d·r`, beside four QR
    decompositions of `d × r`.

    Args:
        rank: int ≥ 1, the number r of directions, or float in (0, 1], as a fraction of d.

    >>> import torch
    >>> x, dy = torch.randn(64, 1) @ torch.randn(1, 8), torch.randn(64, 4)
    >>> estimator = LowRank(rank=1)
    >>> bool(torch.allclose(estimator.contract(estimator.compress(x), dy), dy.T @ x, atol=1e-3))
    True
    """

    rank: int | float

    published: ClassVar[Published] = Published("Eckart & Young 1936", unbiased=False)
    traits: ClassVar[Traits] = Traits(
        family="projection",
        unbiased=False,
        deterministic=True,
        uses_scores=False,
        exact_at_full_budget=False,
        uses_support=True,
    )

    def __post_init__(self) -> None:
        check_rank(self.rank, self.name)

    def compress(
        self,
        x: Float[Tensor, "n d"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> SavedLowRank:
        """`X V` and V."""
        del generator
        check_matrix("x", x)
        x = x.detach()
        support = sampling_scores(x, scores) > 0
        directions = principal_directions(x, support, rank_for(self.rank, x.shape[1])).to(x.dtype)
        rows, scale = scaled_rows(x, support)
        return SavedLowRank((rows @ directions.to(rows.dtype)).to(x.dtype), directions, scale)

    def contract(self, saved: SavedLowRank, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """`(dYᵀ X V) Vᵀ`."""
        inner = product_with(saved.coefficients, dy)
        product = inner @ saved.directions.to(inner.dtype).T * saved.scale.to(inner.dtype)
        return product.to(product_dtype(saved.coefficients, dy))

    def macs(self, n: int, d: int, m: int) -> int:
        """`6 n·d·r` for V, `n·d·r` for X V, `(n + d)·m·r` for the product."""
        r = rank_for(self.rank, d)
        return search_macs(n, d, r) + (n * d + n * m + m * d) * r

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """`G V Vᵀ` over the rows of positive score, V as it is stored."""
        check_rows_agree(x, dy)
        support = sampling_scores(x, scores) > 0
        directions = principal_directions(x, support, rank_for(self.rank, x.shape[1])).to(x.dtype).double()
        product = double_product(x, dy, support)
        return (product @ directions) @ directions.T
