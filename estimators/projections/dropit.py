"""`dropit`: the numbers of x that are largest in absolute value, with their places; biased, with variance zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Estimator, Published, Traits
from wtacrs.estimators.core.checks import check_length, check_matrix, check_rows_agree
from wtacrs.estimators.core.products import double_product, product_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.core.seeded import mask_rows
from wtacrs.estimators.core.sizing import check_budget, rows_for

_MOST_SHORT = 2**31


class SavedElements(NamedTuple):
    """What is kept of `x [n, d]`: k·d numbers in the dtype of x, and 4 bytes for the place of each (8 from 2³¹ on)."""

    values: Float[Tensor, " e"]
    places: Int[Tensor, " e"]
    shape_carrier: Float[Tensor, "n 0"]  # no bytes: carry n and d
    columns: Float[Tensor, "d 0"]


@register("dropit")
@dataclass(frozen=True, repr=False)
class DropIT(Estimator[SavedElements]):
    """Dropped elements: `Ĝ = dYᵀ X̃`, where X̃ has the k·d elements of X that are largest in |x_ij|, and zeros elsewhere.

    Source: Chen, Xu, Wang, Cheng & Yao, "DropIT: Dropping Intermediate Tensors for Memory-Efficient DNN Training", ICLR
    2023 (arXiv 2202.13808), the choice called min-k there: over all elements of the tensor at once, whose places are
    kept as well. Ties go to the element that comes first. Rows of score 0 are zeros here.

    Bias: nothing is drawn, so with D = X − X̃ the dropped elements `EĜ − G = −dYᵀ D`, and the variance is 0. Of all
    choices of k·d elements this one has the least ‖D‖, hence the least bound `‖dY‖₂ ‖D‖` on the norm of the bias.
    Which elements are dropped depends on X alone, so that the bias does not average out over steps.

    Bytes: k·d numbers and 4 bytes for the place of each (8 if x has 2³¹ elements or more): in bf16 three times the bytes
    of k rows. MACs: `n·d·m`, since the dropped elements are zeros of a dense matrix, as in the paper.

    Args:
        budget: float in (0, 1], the fraction of the elements that is kept, or int ≥ 1: as many elements as so many rows
            have.

    >>> import torch
    >>> x = torch.tensor([[3.0, -1.0], [0.5, -4.0]])
    >>> DropIT(budget=1).contract(DropIT(budget=1).compress(x), torch.eye(2))
    tensor([[ 3.,  0.],
            [ 0., -4.]])
    """

    budget: int | float

    published: ClassVar[Published] = Published("Chen et al. 2023, arXiv 2202.13808", unbiased=False)
    traits: ClassVar[Traits] = Traits(
        family="projection",
        unbiased=False,
        deterministic=True,
        uses_scores=False,
        exact_at_full_budget=True,
        uses_support=True,
    )

    def __post_init__(self) -> None:
        check_budget(self.budget, self.name)

    def compress(
        self,
        x: Float[Tensor, "n d"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> SavedElements:
        """The largest elements and their places."""
        del generator
        check_matrix("x", x)
        x = mask_rows(x.detach(), sampling_scores(x, scores) > 0)
        places = self._places(x)
        short = torch.int32 if x.numel() < _MOST_SHORT else torch.int64
        values = x.reshape(-1).index_select(0, places)
        return SavedElements(values, places.to(short), x.new_empty((x.shape[0], 0)), x.new_empty((x.shape[1], 0)))

    def contract(self, saved: SavedElements, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """`dYᵀ X̃`, X̃ with its zeros."""
        check_length(saved.shape_carrier, dy)
        dtype = product_dtype(saved.values, dy)
        n, d = saved.shape_carrier.shape[0], saved.columns.shape[0]
        whole = saved.values.new_zeros(n * d, dtype=dtype)
        kept = whole.index_copy(0, saved.places.to(torch.int64), saved.values.to(dtype))
        return dy.to(dtype).T @ kept.view(n, d)

    def macs(self, n: int, d: int, m: int) -> int:
        """`n·d·m`, as exact."""
        return n * d * m

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """`dYᵀ X̃` over the rows of positive score, in fp64."""
        check_rows_agree(x, dy)
        support = sampling_scores(x, scores) > 0
        x = mask_rows(x, support)
        kept = torch.zeros_like(x, dtype=torch.bool).reshape(-1).index_fill(0, self._places(x), True)
        return double_product(torch.where(kept.view_as(x), x, 0.0), mask_rows(dy, support))

    def _places(self, x: Float[Tensor, "n d"]) -> Int[Tensor, " e"]:
        """Of the kept elements, the largest first."""
        count = rows_for(self.budget, x.shape[0]) * x.shape[1]
        return x.abs().reshape(-1).argsort(descending=True, stable=True)[:count]
