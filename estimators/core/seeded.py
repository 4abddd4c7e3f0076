"""Estimators whose operator is regenerated from a saved seed: what sketches and projections share.

Rows of score 0 are set to zero before anything else, so that they never touch the estimate; the sizes of positive
scores do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators.core.checks import check_length, check_rows_agree
from wtacrs.estimators.core.counter_rng import Source
from wtacrs.estimators.core.products import double_product, product_dtype, working_dtype
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.core.sourced import RegeneratingEstimator

SavedT = TypeVar("SavedT", bound=tuple[Any, ...])

# entries of an operator that exist at one time
BLOCK = 2**22


class SeededEstimator(RegeneratingEstimator[SavedT]):
    """Base of the estimators whose random operator is a function of one seed.

    Normal numbers are listed by a rule that is exact to degree five.
    """

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """The exact product of the rows of positive score, in fp64: what every unbiased one has for its mean."""
        check_rows_agree(x, dy)
        return double_product(x, dy, sampling_scores(x, scores) > 0)


def mask_rows(matrix: Float[Tensor, "n c"], support: Bool[Tensor, " n"]) -> Float[Tensor, "n c"]:
    """The matrix with all rows outside the support set to zero."""
    return torch.where(support.unsqueeze(1), matrix, 0.0)


def scaled_rows(
    x: Float[Tensor, "n d"], support: Bool[Tensor, " n"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, " 1"]]:
    """The supported rows as every method here starts from them: in working precision, within ±1, and their scale."""
    return normalised(mask_rows(x.to(working_dtype(x.dtype)), support))


def product_with(coefficients: Float[Tensor, "n r"], dy: Float[Tensor, "n2 m"]) -> Float[Tensor, "m r"]:
    """`dYᵀ` times the numbers kept of every row, in working precision.

    Raises:
        InputError: if `dy` has not as many rows.
    """
    check_length(coefficients, dy)
    working = working_dtype(product_dtype(coefficients, dy))
    return dy.to(working).T @ coefficients.to(working)


def normalised(matrix: Float[Tensor, "n c"]) -> tuple[Float[Tensor, "n c"], Float[Tensor, " 1"]]:
    """The matrix divided by its largest entry, and that entry: sums then stay far from the limits of the dtype."""
    if matrix.numel() == 0:
        return matrix, matrix.new_ones(1)
    largest = matrix.abs().amax().reshape(1)
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    return matrix / scale, scale


def operator_blocks(
    kind: str, source: Source, stream: int, rows: int, columns: int, like: Tensor
) -> Iterator[tuple[slice, Float[Tensor, "b columns"]]]:
    """A `rows × columns` operator of independent entries of mean 0 and variance 1, a few rows at a time.

    Args:
        kind: "gaussian" or "rademacher".
        source: of the entries; entry (i, j) has the counter `i·columns + j`.
        stream: of the source.
        rows: as stated.
        columns: as stated.
        like: dtype and device of the entries.
    """
    step = max(BLOCK // max(columns, 1), 1)
    draw = source.normals if kind == "gaussian" else source.signs
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        counters = torch.arange(start * columns, stop * columns, device=like.device)
        yield slice(start, stop), draw(stream, counters).reshape(stop - start, columns).to(like.dtype)
