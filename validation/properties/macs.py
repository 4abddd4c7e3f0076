"""What an estimator multiplies: as it states it, and as torch counts it while the two verbs run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from wtacrs.estimators import Estimator, NoClosedForm


def stated_macs(estimator: Estimator, n: int, d: int, m: int) -> int | None:
    """`estimator.macs(n, d, m)`, None if the estimator, or one inside it, does not state them.

    Args:
        estimator: any estimator.
        n: rows of x and dy.
        d: columns of x.
        m: columns of dy.
    """
    try:
        return estimator.macs(n, d, m)
    except (NoClosedForm, NotImplementedError):  # integers only: no kernel of torch can be missing here
        return None


def counted_macs(
    estimator: Estimator,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    *,
    scores: Shaped[Tensor, " n"] | None = None,
    generator: torch.Generator | None = None,
) -> int:
    """Multiply–accumulates (MACs) in the matrix products of one `compress` and one `contract`.

    Torch's own counter, which takes a multiplication and an addition for two operations, and leaves out the
    products of a matrix with a vector: they are added here.
    """
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mv: _matrix_vector}) as counter:
        estimator.contract(estimator.compress(x, scores=scores, generator=generator), dy)
    return int(counter.get_total_flops()) // 2


def _matrix_vector(matrix: Sequence[int], *_: Any, **__: Any) -> int:
    rows, columns = matrix
    return 2 * rows * columns
