"""`velora`: rows cut into short pieces, each kept as its coordinate along one shared direction; biased."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Estimator, Published, Traits
from wtacrs.estimators.core.checks import check_matrix, check_rows_agree
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.products import double_product, product_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.core.seeded import product_with, scaled_rows


class SavedPieces(NamedTuple):
    """What is kept of `x [n, d]`: a number per piece, the direction, in the dtype of x, and 4 bytes (fp64: 8)."""

    coordinates: Float[Tensor, "n g"]
    direction: Float[Tensor, " s"]
    scale: Float[Tensor, " 1"]
    shape_carrier: Float[Tensor, "0 d"]  # no bytes: carries d


@register("velora")
@dataclass(frozen=True, repr=False)
class VeLoRA(Estimator[SavedPieces]):
    """VeLoRA-style: every row is cut into g pieces, and a piece u is replaced by `(v·u) v` with one unit vector v.

    Source: Miles, Reddy, Elezi & Deng, "VeLoRA: Memory Efficient Training using Rank-1 Sub-Token Projections",
    2024 (arXiv 2405.17991). There v is the normalised average piece of the first batch and fixed from then on.
    Here estimators have no memory: v is the normalised average piece of the very rows that are compressed. Pieces
    have length ⌈d/g⌉, the last ones filled up with zeros. If the average is zero, so is v.

    Bias: nothing is drawn, so with `E = 1_g ⊗ v vᵀ` `EĜ − G = −G (1 − E)`, and the variance is 0. E has rank g:
    unless g = d, whatever is orthogonal to v in a piece never reaches the weights.

    Bytes: `n·g + ⌈d/g⌉` numbers + 4. MACs: `n·g·⌈d/g⌉ + n·g·m`, beside one pass over
    the `m·d` entries of the product.

    Args:
        groups: number g of pieces per row, from 1 to d.

    >>> import torch
    >>> x = torch.tensor([[1.0, 1.0, 3.0, 1.0]])
    >>> estimator = VeLoRA(groups=2)  # pieces (1, 1) and (3, 1), average (2, 1)
    >>> estimator.contract(estimator.compress(x), torch.ones(1, 1))
    tensor([[1.2000, 0.6000, 2.8000, 1.4000]])
    """

    groups: int

    published: ClassVar[Published] = Published("Miles et al. 2024, arXiv 2405.17991", unbiased=False)
    traits: ClassVar[Traits] = Traits(
        family="projection",
        unbiased=False,
        deterministic=True,
        uses_scores=False,
        exact_at_full_budget=False,
        uses_support=True,
    )

    def __post_init__(self) -> None:
        if isinstance(self.groups, bool) or not isinstance(self.groups, int) or self.groups < 1:
            raise InputError(f"velora: groups={self.groups!r} must be an int ≥ 1, the number of pieces per row")

    def compress(
        self,
        x: Float[Tensor, "n d"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> SavedPieces:
        """One coordinate per piece, and the direction."""
        del generator
        check_matrix("x", x)
        x = x.detach()
        pieces, direction, scale = self._pieces(x, sampling_scores(x, scores))
        coordinates = pieces @ direction.to(pieces.dtype)
        return SavedPieces(coordinates.to(x.dtype), direction, scale, x.new_empty((0, x.shape[1])))

    def contract(self, saved: SavedPieces, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """`dYᵀ` times the coordinates, every one of them spread along the direction."""
        inner = product_with(saved.coordinates, dy)
        product = _along(inner, saved.direction.to(inner.dtype))[:, : saved.shape_carrier.shape[1]]
        return (product * saved.scale.to(inner.dtype)).to(product_dtype(saved.coordinates, dy))

    def macs(self, n: int, d: int, m: int) -> int:
        """`n·g·⌈d/g⌉` for the coordinates, `n·g·m` for the product."""
        return n * self.groups * (-(-d // self.groups) + m)

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """`G E` over the rows of positive score, with the direction as it is stored."""
        check_rows_agree(x, dy)
        ready = sampling_scores(x, scores)
        direction = self._pieces(x, ready)[1].double()
        product = double_product(x, dy, ready > 0)
        coordinates = self._cut(product) @ direction
        return _along(coordinates, direction)[:, : x.shape[1]]

    def _pieces(
        self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n g s"], Float[Tensor, " s"], Float[Tensor, " 1"]]:
        """The scaled pieces, their unit direction in the dtype of x, and the scale."""
        if self.groups > x.shape[1]:
            raise InputError(f"velora: groups={self.groups} must be at most the {x.shape[1]} features of x")
        rows, scale = scaled_rows(x, scores > 0)
        pieces = self._cut(rows)
        total = pieces.sum((0, 1))
        length = torch.linalg.vector_norm(total)
        return pieces, (total / torch.where(length > 0, length, 1.0)).to(x.dtype), scale

    def _cut(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n g s"]:
        size = -(-rows.shape[1] // self.groups)
        padded = torch.nn.functional.pad(rows, (0, self.groups * size - rows.shape[1]))
        return padded.reshape(-1, self.groups, size)


def _along(coordinates: Float[Tensor, "m g"], direction: Float[Tensor, " s"]) -> Float[Tensor, "m gs"]:
    return (coordinates.unsqueeze(2) * direction).reshape(coordinates.shape[0], -1)
