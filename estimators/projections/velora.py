"""`velora`: rows cut into short pieces, each kept as its coordinate along one shared direction; biased in most forms."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Published, Traits
from wtacrs.estimators.core.checks import check_choice, check_rows_agree
from wtacrs.estimators.core.counter_rng import CounterStream, Source
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.products import double_product, product_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.core.seeded import product_with, scaled_rows
from wtacrs.estimators.core.sourced import RandomChoices, SourcedEstimator

DIRECTIONS = ("average", "fixed", "random")
_SIGNS = 0  # stream of the seed


class SavedPieces(NamedTuple):
    """What is kept of `x [n, d]`: a number per piece, the direction, in the dtype of x, and 4 bytes (fp64: 8)."""

    coordinates: Float[Tensor, "n g"]
    direction: Float[Tensor, " s"]
    scale: Float[Tensor, " 1"]
    shape_carrier: Float[Tensor, "0 d"]  # no bytes: carries d


@register("velora")
@dataclass(frozen=True, repr=False)
class VeLoRA(SourcedEstimator[SavedPieces]):
    """VeLoRA-style: every row is cut into g pieces of length s, and a piece u becomes `c (v·u) v`, v a unit vector.

    Source: Miles, Reddy, Elezi & Deng, "VeLoRA: Memory Efficient Training using Rank-1 Sub-Token Projections",
    2024 (arXiv 2405.17991), with a scale c below 1 for some models. Pieces have length s = ⌈d/g⌉, the last ones filled up
    with zeros. Estimators have no memory; where v comes from is one of

    - "average": the normalised average piece of the very rows that are compressed. In the paper it is that of the first
      batch and fixed from then on; it was tried anew in every batch as well. If the average is zero, so is v.
    - "fixed": entries ±1/√s that look random and are always the same, as a v drawn once before training.
    - "random": entries ±1/√s drawn anew in every call. The paper's random v is normal before it is normalised; both have
      `E v vᵀ = 1/s`, and signs can be listed.

    Mean: with `E = 1_g ⊗ v vᵀ` it is `c G E` where v is not drawn, and the variance is 0: the bias is `−G (1 − c E)`. E
    has rank g: unless g = d, whatever is orthogonal to v in a piece never reaches the weights. A random v has the mean
    `EĜ = (c/s) G`, a gradient that is too short; `scale="unbiased"` is c = s, with which `EĜ = G`.

    Variance: let a piece k of a row of G have q features, s but in the last ones. For signs (v·k)² and v_j² = 1/s are
    independent, and `E(v·k)² = ‖k‖²/s`, so that the second moment is `c² Σ_k q_k/s² · ‖k‖²`, and

        Var Ĝ = (c²/s²) Σ_k (q_k − 1) ‖k‖²  ≤  c² (s − 1)/s² · ‖G‖²;        with c = s at most (s − 1) ‖G‖².

    Bytes: `n·g + ⌈d/g⌉` numbers + 4. MACs: `n·g·⌈d/g⌉ + n·g·m`, beside one pass over
    the `m·d` entries of the product.

    Args:
        groups: number g of pieces per row, from 1 to d.
        direction: "average", "fixed" or "random".
        scale: a number c > 0, or "unbiased" with a random direction.

    >>> import torch
    >>> x = torch.tensor([[1.0, 1.0, 3.0, 1.0]])
    >>> estimator = VeLoRA(groups=2)  # pieces (1, 1) and (3, 1), average (2, 1)
    >>> estimator.contract(estimator.compress(x), torch.ones(1, 1))
    tensor([[1.2000, 0.6000, 2.8000, 1.4000]])
    >>> VeLoRA(groups=2, direction="random", scale="unbiased").variance(x, torch.ones(1, 1))
    tensor(12., dtype=torch.float64)
    """

    groups: int
    direction: str = "average"
    scale: float | str = 1.0

    published: ClassVar[Published] = Published(
        "Miles et al. 2024, arXiv 2405.17991",
        unbiased=False,
        note='unbiased with direction="random" and scale="unbiased", which is not published',
    )
    # of an instance: a direction may be random, and its scale one that makes up for it
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
        check_choice("direction", self.direction, DIRECTIONS, self.name)
        drawn, corrected = self.direction == "random", isinstance(self.scale, str) and self.scale == "unbiased"
        if not (corrected and drawn) and not _positive(self.scale):
            raise InputError(
                f'velora: scale={self.scale!r} must be a finite number > 0, or "unbiased" with direction="random"'
            )
        own = replace(self.traits, deterministic=not drawn, unbiased=corrected)
        object.__setattr__(self, "traits", own)  # frozen

    def keep(self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"], source: RandomChoices) -> SavedPieces:
        """One coordinate per piece, and the direction."""
        x = x.detach()
        pieces, scale = self._pieces(x, scores)
        direction = self._direction(pieces, source).to(x.dtype)
        coordinates = pieces @ direction.to(pieces.dtype) / self._length(pieces.shape[2])
        return SavedPieces(coordinates.to(x.dtype), direction, scale, x.new_empty((0, x.shape[1])))

    def contract(self, saved: SavedPieces, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """`dYᵀ` times the coordinates, every one of them spread along the direction."""
        inner = product_with(saved.coordinates, dy)
        product = _along(inner, saved.direction.to(inner.dtype))[:, : saved.shape_carrier.shape[1]]
        size = saved.direction.shape[0]
        product = product * (saved.scale.to(inner.dtype) * (self._factor(size) / self._length(size)))
        return product.to(product_dtype(saved.coordinates, dy))

    def macs(self, n: int, d: int, m: int) -> int:
        """`n·g·⌈d/g⌉` for the coordinates, `n·g·m` for the product."""
        return n * self.groups * (-(-d // self.groups) + m)

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """`c G E` over the rows of positive score, with the direction as it is stored; `(c/s) G` if it is random."""
        check_rows_agree(x, dy)
        ready = sampling_scores(x, scores)
        pieces, _ = self._pieces(x, ready)
        product = double_product(x, dy, ready > 0)
        size = pieces.shape[2]
        if self.direction == "random":
            return product * (self._factor(size) / size)
        direction = self._direction(pieces, None).to(x.dtype).double()
        coordinates = self._cut(product) @ direction
        factor = self._factor(size) / self._length(size) ** 2
        return _along(coordinates, direction)[:, : x.shape[1]] * factor

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`(c²/s²) Σ_k (q_k − 1) ‖k‖²` over the pieces of the product if the direction is random, else 0."""
        if self.direction != "random":
            return super().variance(x, dy, scores=scores)
        check_rows_agree(x, dy)
        product = double_product(x, dy, sampling_scores(x, scores) > 0)
        pieces = self._cut(product)
        size = pieces.shape[2]
        filled = self._cut(torch.ones_like(product[:1])).sum(2)
        return (self._factor(size) / size) ** 2 * ((filled - 1) * pieces.square().sum(2)).sum()

    def _factor(self, size: int) -> float:
        """c for pieces of this length."""
        return float(size) if isinstance(self.scale, str) else float(self.scale)

    def _length(self, size: int) -> float:
        """That of the stored direction: signs are stored as ±1, which every dtype holds exactly."""
        return 1.0 if self.direction == "average" else size**0.5

    def _pieces(
        self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n g s"], Float[Tensor, " 1"]]:
        """The scaled pieces and the scale."""
        if self.groups > x.shape[1]:
            raise InputError(f"velora: groups={self.groups} must be at most the {x.shape[1]} features of x")
        rows, scale = scaled_rows(x, scores > 0)
        return self._cut(rows), scale

    def _direction(self, pieces: Float[Tensor, "n g s"], source: RandomChoices | None) -> Float[Tensor, " s"]:
        """v, or signs ±1 in its place, in the dtype of the pieces; the source is asked for a random one alone."""
        size = pieces.shape[2]
        if self.direction == "average":
            total = pieces.sum((0, 1))
            length = torch.linalg.vector_norm(total)
            return total / torch.where(length > 0, length, 1.0)
        if self.direction == "fixed":
            numbers: Source = CounterStream(torch.zeros(1, dtype=torch.int64, device=pieces.device))
        else:
            assert source is not None
            numbers = source.seeded()[1]
        return numbers.signs(_SIGNS, torch.arange(size, device=pieces.device)).to(pieces.dtype)

    def _cut(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n g s"]:
        size = -(-rows.shape[1] // self.groups)
        padded = torch.nn.functional.pad(rows, (0, self.groups * size - rows.shape[1]))
        return padded.reshape(-1, self.groups, size)


def _positive(scale: object) -> bool:
    number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    return number and 0.0 < scale < math.inf  # type: ignore[operator]


def _along(coordinates: Float[Tensor, "m g"], direction: Float[Tensor, " s"]) -> Float[Tensor, "m gs"]:
    return (coordinates.unsqueeze(2) * direction).reshape(coordinates.shape[0], -1)
