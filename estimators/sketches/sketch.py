"""Sketches of the row axis: `Ĝ = (S dY)ᵀ (S X)` with a random `S [k, n]`, `E SᵀS = 1`, rebuilt from its seed.

Hence `EĜ = dYᵀ (E SᵀS) X = G`. All of them have one variance, but for the Gaussian's fourth moment and for SRHT's
drawing without replacement. Let `Ĝ = (1/k) Σ_r u_r v_rᵀ` with `u = Σ_i s_i y_i`, `v = Σ_i s_i x_i` and independent
entries s of mean 0, variance 1 and fourth moment κ. With `A = X Xᵀ` and `B = dY dYᵀ`,

    E‖u vᵀ‖² = E Σ_ijkl s_i s_j s_k s_l A_ij B_kl = tr A tr B + 2⟨A, B⟩ + (κ − 3) Σ_i A_ii B_ii,

and `⟨A, B⟩ = ‖G‖²`, `A_ii B_ii = w_i²`. The k terms are independent with mean G:

    Var Ĝ = (‖X‖²‖dY‖² + ‖G‖² + (κ − 3) Σ w_i²) / k,      κ = 3 (Gaussian), κ = 1 (signs).

No score enters but for zeros: a sketch pays `‖X‖²‖dY‖² ≥ (Σ w)²` for rows of unequal sizes, and scores cannot
mislead it. Where pairs cancel it can be better than CRS with the oracle's scores, `((Σ w)² − ‖G‖²)/k`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64, Int64, Shaped, UInt8
from torch import Tensor

from wtacrs.estimators.core.base import Traits
from wtacrs.estimators.core.checks import check_length, check_rows_agree
from wtacrs.estimators.core.counter_rng import Source
from wtacrs.estimators.core.packing import pack_bits, unpack_bits
from wtacrs.estimators.core.products import double_product, product_dtype, working_dtype
from wtacrs.estimators.core.scores import row_norms, sampling_scores
from wtacrs.estimators.core.seeded import (
    SeededEstimator,
    operator_blocks,
    scaled_rows,
)
from wtacrs.estimators.core.sizing import check_budget, rows_for
from wtacrs.estimators.core.sourced import RandomChoices

# which numbers of a source a sketch draws from
ENTRIES, PLACES = 0, 1

SKETCH_TRAITS = Traits(
    family="sketch",
    unbiased=True,
    deterministic=False,
    uses_scores=False,
    exact_at_full_budget=False,
    uses_support=True,
)


class SavedSketch(NamedTuple):
    """What a sketch keeps of `x [n, d]`: k rows in the dtype of x, 12 bytes (fp64: 16), and one bit per row of x.

    The bits say which rows have a positive score: dY must not bring in the others.
    """

    sketch: Float[Tensor, "k d"]
    scale: Float[Tensor, " 1"]
    seed: Int64[Tensor, " 1"]
    support: UInt8[Tensor, " b"]
    shape_carrier: Float[Tensor, "n 0"]  # no bytes: carries n


@dataclass(frozen=True, repr=False)
class Sketch(SeededEstimator[SavedSketch]):
    """Base of the sketches; a subclass defines `apply`.

    Args:
        budget: float in (0, 1], the rows of the sketch as a fraction of n, or int ≥ 1, their number.
    """

    budget: int | float

    traits: ClassVar[Traits] = SKETCH_TRAITS

    def __post_init__(self) -> None:
        check_budget(self.budget, self.name)

    @abstractmethod
    def apply(self, matrix: Float[Tensor, "n c"], k: int, source: Source) -> Float[Tensor, "k c"]:
        """`S @ matrix`, in the precision of the matrix."""

    def keep(self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"], source: RandomChoices) -> SavedSketch:
        """`S X`, scaled into the range of every dtype."""
        x, support = x.detach(), scores > 0
        seed, numbers = source.seeded()
        n = x.shape[0]
        rows, scale = scaled_rows(x, support)
        sketch = self.apply(rows, rows_for(self.budget, n), numbers).to(x.dtype)
        return SavedSketch(sketch, scale, seed, pack_bits(support), x.new_empty((n, 0)))

    def finish(self, saved: SavedSketch, dy: Float[Tensor, "n m"], source: Source) -> Float[Tensor, "m d"]:
        """`(S dY)ᵀ (S X)`."""
        check_length(saved.shape_carrier, dy)
        dtype = product_dtype(saved.sketch, dy)
        working = working_dtype(dtype)
        rows, scale = scaled_rows(dy.to(working), unpack_bits(saved.support, dy.shape[0]))
        product = self.apply(rows, saved.sketch.shape[0], source).T @ saved.sketch.to(working)
        return (product * saved.scale.to(working) * scale).to(dtype)

    def macs(self, n: int, d: int, m: int) -> int:
        """`k·d·m`; sketches that are matrix products themselves add them."""
        return rows_for(self.budget, n) * d * m


def dense_sketch(kind: str, matrix: Float[Tensor, "n c"], k: int, source: Source) -> Float[Tensor, "k c"]:
    """`S @ matrix` with independent entries of variance 1/k, never holding all of S."""
    total = matrix.new_zeros((k, matrix.shape[1]))
    for rows, block in operator_blocks(kind, source, ENTRIES, matrix.shape[0], k, matrix):
        total = total + block.T @ matrix[rows]
    return total / max(k, 1) ** 0.5


def sketch_variance(
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    scores: Shaped[Tensor, " n"] | None,
    k: int,
    kurtosis: float,
) -> Float64[Tensor, ""]:
    """`(‖X‖²‖dY‖² + ‖G‖² + (κ − 3) Σ w²) / k` over the rows of positive score, in fp64."""
    check_rows_agree(x, dy)
    support = sampling_scores(x, scores) > 0
    lengths, widths = (torch.where(support, row_norms(a).square(), 0.0) for a in (x, dy))
    size = double_product(x, dy, support).square().sum()
    of_one = lengths.sum() * widths.sum() + size + (kurtosis - 3) * (lengths * widths).sum()
    return (of_one / max(k, 1)).clamp(min=0.0)
