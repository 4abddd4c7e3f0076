"""`random_projection`: the features of x in a few random directions, rebuilt from a seed."""

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
from wtacrs.estimators.core.products import double_product, product_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.core.seeded import (
    SeededEstimator,
    operator_blocks,
    product_with,
    scaled_rows,
)
from wtacrs.estimators.core.sourced import RandomChoices
from wtacrs.estimators.projections.subspace import DIRECTIONS, check_rank, rank_for

KINDS = ("rademacher", "gaussian")


class SavedProjection(NamedTuple):
    """What is kept of `x [n, d]`: r numbers per row in the dtype of x, and 12 bytes (fp64: 16)."""

    coefficients: Float[Tensor, "n r"]
    scale: Float[Tensor, " 1"]
    seed: Int64[Tensor, " 1"]
    shape_carrier: Float[Tensor, "0 d"]  # no bytes: carries d


@register("random_projection")
@dataclass(frozen=True, repr=False)
class RandomProjection(SeededEstimator[SavedProjection]):
    """Random projection of the features: `Ĝ = dYᵀ (X R) Rᵀ = G R Rᵀ`, entries of `R [d, r]` of variance 1/r.

    Source: for activations Shamshoum, Hodos, Sieradzki & Schuster, "CompAct: Compressed Activations for
    Memory-Efficient LLM Training", 2024 (arXiv 2410.15352); for the signs Achlioptas 2003.

    Mean: `E R Rᵀ = 1`, hence `EĜ = G`, of the rows of positive score.

    Variance: `Ĝ = (1/r) Σ_t G s_t s_tᵀ` with independent columns s_t of independent entries of variance 1 and
    fourth moment κ. By the fourth moment of `wtacrs.estimators.sketches.sketch` with `A = GᵀG` and `B = 1`,
    `E‖G s sᵀ‖² = d‖G‖² + 2‖G‖² + (κ − 3)‖G‖²`, so that

        Var Ĝ = (d + κ − 2)/r · ‖G‖²:      (d + 1)/r · ‖G‖² (Gaussian),  (d − 1)/r · ‖G‖² (signs).

    It depends neither on n nor on the scores, and does not vanish at r = d: the noise is about as large as G or
    larger at every r ≤ d, however redundant the rows are.

    Bytes: `n·r` numbers + 12. MACs: `n·d·r + n·m·r + m·d·r`, those by signs included.

    Args:
        rank: int ≥ 1, the number r of directions, or float in (0, 1], as a fraction of d.
        kind: "rademacher" (entries ±1/√r) or "gaussian".

    >>> import torch
    >>> x, dy = torch.randn(64, 8), torch.randn(64, 4)
    >>> estimator = RandomProjection(rank=2)
    >>> kept = estimator.compress(x, generator=torch.Generator().manual_seed(0))
    >>> kept.coefficients.shape, estimator.contract(kept, dy).shape
    (torch.Size([64, 2]), torch.Size([4, 8]))
    """

    rank: int | float
    kind: str = "rademacher"

    published: ClassVar[Published] = Published("Shamshoum et al. 2024, arXiv 2410.15352", unbiased=True)
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
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            raise InputError(f'random_projection: kind={self.kind!r} must be "rademacher" or "gaussian"')

    def keep(
        self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"], source: RandomChoices
    ) -> SavedProjection:
        """`X R`."""
        x, support = x.detach(), scores > 0
        seed, numbers = source.seeded()
        d = x.shape[1]
        rows, scale = scaled_rows(x, support)
        r = rank_for(self.rank, d)
        kept = rows.new_zeros((x.shape[0], r))
        for features, block in operator_blocks(self.kind, numbers, DIRECTIONS, d, r, rows):
            kept = kept + rows[:, features] @ block
        return SavedProjection((kept / max(r, 1) ** 0.5).to(x.dtype), scale, seed, x.new_empty((0, d)))

    def finish(self, saved: SavedProjection, dy: Float[Tensor, "n m"], source: Source) -> Float[Tensor, "m d"]:
        """`(dYᵀ X R) Rᵀ`."""
        r = saved.coefficients.shape[1]
        inner = product_with(saved.coefficients, dy) / max(r, 1) ** 0.5
        blocks = operator_blocks(self.kind, source, DIRECTIONS, saved.shape_carrier.shape[1], r, inner)
        product = torch.cat([inner @ block.T for _, block in blocks], dim=1)
        return (product * saved.scale.to(inner.dtype)).to(product_dtype(saved.coefficients, dy))

    def macs(self, n: int, d: int, m: int) -> int:
        """`n·d·r` for X R, `n·m·r` for its product with dY, `m·d·r` for the way back."""
        return (n * d + n * m + m * d) * rank_for(self.rank, d)

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`(d + κ − 2)/r · ‖G‖²` over the rows of positive score."""
        d = x.shape[1]
        check_rows_agree(x, dy)
        product = double_product(x, dy, sampling_scores(x, scores) > 0)
        factor = (d + (1 if self.kind == "gaussian" else -1)) / max(rank_for(self.rank, d), 1)
        return factor * product.square().sum()
