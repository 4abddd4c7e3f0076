"""`prac`: principal directions of the features exactly, random directions of their complement rescaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Published, Traits
from wtacrs.estimators.core.checks import check_rows_agree
from wtacrs.estimators.core.counter_rng import Source
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.products import double_product, product_dtype, working_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.core.seeded import SeededEstimator, product_with, scaled_rows
from wtacrs.estimators.core.sourced import RandomChoices
from wtacrs.estimators.projections.subspace import (
    DIRECTIONS,
    check_rank,
    principal_directions,
    random_matrix,
    rank_for,
    search_macs,
)


class SavedPrac(NamedTuple):
    """What is kept of `x [n, d]`: r numbers per row, r₁ directions, in the dtype of x, and 12 bytes (fp64: 16)."""

    coefficients: Float[Tensor, "n r"]
    principal: Float[Tensor, "d p"]
    scale: Float[Tensor, " 1"]
    seed: Int64[Tensor, " 1"]


@register("prac")
@dataclass(frozen=True, repr=False)
class PRAC(SeededEstimator[SavedPrac]):
    """Principal and random directions: `Ĝ = G P + (d − r₁)/r₂ · G Q Qᵀ`.

    P projects on r₁ principal directions of the rows of x, and the r₂ orthonormal columns of Q span a uniformly
    random subspace of the complement; r = r₁ + r₂.

    Source: Li, Zhang & Fang, "PRAC: Principal-Random Subspace for LLM Activation Compression and Memory-Efficient
    Training", 2026 (arXiv 2602.23111). Here P comes from three subspace iterations with a fixed start, in every
    call, and is stored with the input.

    Mean: by symmetry `E Q Qᵀ` is a multiple of `1 − P`, and its trace is r₂, so `E Q Qᵀ = r₂/(d − r₁) · (1 − P)`.
    Hence `EĜ = G P + G (1 − P) = G`, whatever P is. P is that of the *stored* directions, made orthonormal again:
    their rounding is no bias.

    Variance: with `G_⊥ = G (1 − P)` and `E‖G_⊥ Q Qᵀ‖² = ⟨G_⊥, G_⊥ E Q Qᵀ⟩ = r₂/(d − r₁) · ‖G_⊥‖²`,

        Var Ĝ = (d − r₁ − r₂)/r₂ · ‖G_⊥‖².

    It is 0 at r = d. With r₁ = 0 it is `(d/r − 1)‖G‖²`, below the `(d − 1)/r · ‖G‖²` of independent signs.

    Bytes: `n·r + d·r₁` numbers + 12. MACs: `6 n·d·r₁` for P and `n·d·r + n·m·r + m·d·r`, beside four QR
    decompositions of `d × r₁` and two of `d × r`.

    Args:
        rank: int ≥ 1, the number r of directions, or float in (0, 1], as a fraction of d.
        principal: r₁ as a float in [0, 1), a fraction of r, or as an int ≥ 0 below r.

    >>> import torch
    >>> x, dy = torch.randn(64, 1) @ torch.randn(1, 8), torch.randn(64, 4)
    >>> estimator = PRAC(rank=2)  # one principal direction is all there is
    >>> bool(torch.allclose(estimator.contract(estimator.compress(x), dy), dy.T @ x, atol=1e-3))
    True
    """

    rank: int | float
    principal: int | float = 0.5

    published: ClassVar[Published] = Published("Li, Zhang & Fang 2026, arXiv 2602.23111", unbiased=True)
    traits: ClassVar[Traits] = Traits(
        family="projection",
        unbiased=True,
        deterministic=False,
        uses_scores=False,
        exact_at_full_budget=False,
        uses_support=True,
    )

    def __post_init__(self) -> None:
        check_rank(self.rank, self.name)
        p = self.principal
        number = isinstance(p, (int, float)) and not isinstance(p, bool)
        if not number or not (p >= 0 if isinstance(p, int) else 0.0 <= p < 1.0):
            accepted = "a float in [0, 1) (fraction of the rank) or an int ≥ 0 below the rank"
            raise InputError(f"prac: principal={p!r} must be {accepted}")

    def ranks(self, d: int) -> tuple[int, int]:
        """r₁ and r₂ among d features.

        Raises:
            InputError: if no direction is left to be random.
        """
        r = rank_for(self.rank, d)
        p = self.principal
        if p == 0 or r == 0:
            return 0, r
        first = p if isinstance(p, int) else min(int(p * r + 1e-9), r - 1)
        if first >= r and r < d:
            raise InputError(f"prac: principal={p!r} must be below the rank, {r} of {d} features")
        return min(first, r), r - min(first, r)

    def keep(self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"], source: RandomChoices) -> SavedPrac:
        """The rows in all r directions, and the principal ones."""
        x, support = x.detach(), scores > 0
        seed, numbers = source.seeded()
        first, second = self.ranks(x.shape[1])
        principal = principal_directions(x, support, first).to(x.dtype)
        rows, scale = scaled_rows(x, support)
        return SavedPrac((rows @ _directions(principal, second, numbers)).to(x.dtype), principal, scale, seed)

    def unlisted(self) -> str | None:
        """Its outcomes are all directions."""
        return f"{self!r}: a random subspace has no finite list of outcomes"

    def finish(self, saved: SavedPrac, dy: Float[Tensor, "n m"], source: Source) -> Float[Tensor, "m d"]:
        """Back from the r directions, the random ones rescaled."""
        inner = product_with(saved.coefficients, dy)
        d, first = saved.principal.shape
        second = saved.coefficients.shape[1] - first
        directions = _directions(saved.principal, second, source).to(inner.dtype)
        inner = torch.cat([inner[:, :first], inner[:, first:] * ((d - first) / max(second, 1))], dim=1)
        product = inner @ directions.T * saved.scale.to(inner.dtype)
        return product.to(product_dtype(saved.coefficients, dy))

    def macs(self, n: int, d: int, m: int) -> int:
        """`6 n·d·r₁` for P, `n·d·r` for the coefficients, `(n + d)·m·r` for the product."""
        first, second = self.ranks(d)
        return search_macs(n, d, first) + (n * d + n * m + m * d) * (first + second)

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`(d − r₁ − r₂)/r₂ · ‖G (1 − P)‖²` over the rows of positive score, P as it is stored."""
        check_rows_agree(x, dy)
        support = sampling_scores(x, scores) > 0
        d = x.shape[1]
        first, second = self.ranks(d)
        stored = principal_directions(x, support, first).to(x.dtype).double()
        principal = torch.linalg.qr(stored)[0]
        product = double_product(x, dy, support)
        rest = product - (product @ principal) @ principal.T
        return (d - first - second) / max(second, 1) * rest.square().sum()


def _directions(principal: Float[Tensor, "d p"], second: int, source: Source) -> Float[Tensor, "d r"]:
    """Orthonormal: first a basis of the stored principal directions, then random ones of their complement."""
    stored = principal.to(working_dtype(principal.dtype))
    free = random_matrix(source, DIRECTIONS, principal.shape[0], second, stored)
    return torch.linalg.qr(torch.cat([stored, free], dim=1))[0]
