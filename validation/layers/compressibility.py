"""How far the product of one layer can be sampled: what its column-row pairs say, whatever the estimator.

With joint norms w_i = ‖x_i‖‖y_i‖ over n live rows, W = Σ w and G = Σ x_i y_iᵀ:

* the effective number of rows (Kish, "Survey Sampling", Wiley 1965) is W² / Σ w², n for rows of one size, 1 for a single
  row: its share of n says how few rows carry the product;
* `tail` is the share of W outside the heaviest tenth of the rows;
* `coherence` is ‖G‖ / W: 1 where all pairs point one way, about 1/√n where they are independent;
* `rows_needed` is the least share of the rows with which the best inclusion probabilities, π = min(1, w/τ), keep the
  variance of independent draws, Σ (1/π − 1) w², within a share of ‖G‖².
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from wtacrs.estimators import InputError, joint_norms
from wtacrs.estimators.rows.inclusion import inclusion

TAIL_BEGINS = 0.1


class Compressibility(NamedTuple):
    """Numbers of one layer.

    Attributes:
        n: live rows, those of a joint norm above 0.
        effective: effective number of rows over n, in [1/n, 1].
        tail: share of the joint norms outside the heaviest tenth of the rows.
        coherence: ‖G‖ / W, in [0, 1].
        rows_needed: share of the live rows for a variance of so much of ‖G‖².
    """

    n: int
    effective: float
    tail: float
    coherence: float
    rows_needed: float


def compressibility(
    x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, variance: float = 1.0
) -> Compressibility:
    """The numbers of one layer; padding, rows of joint norm 0, is left out.

    Args:
        x: input rows.
        dy: output gradients.
        variance: of an estimate, over ‖G‖², that `rows_needed` is to keep.

    Raises:
        InputError: if `variance` is not positive, or every pair is zero.
    """
    if not variance > 0:
        raise InputError(f"variance={variance!r} must be greater than 0")
    w = joint_norms(x, dy).to(torch.float64)
    w = w[w > 0].sort(descending=True).values
    if not len(w):
        raise InputError("x, dy: every column-row pair is zero")
    total, n = float(w.sum()), len(w)
    size = float((dy.to(torch.float64).T @ x.to(torch.float64)).norm())
    heavy = max(1, round(TAIL_BEGINS * n))
    return Compressibility(
        n=n,
        effective=total**2 / float(w.square().sum()) / n,
        tail=float(w[heavy:].sum()) / total,
        coherence=size / total,
        rows_needed=_rows_needed(w, variance * size**2) / n,
    )


def _rows_needed(w: Float64[Tensor, " n"], allowed: float) -> int:
    """The fewest rows whose optimal independent draws have at most this variance: it falls as rows are added."""
    low, high = 0, len(w)  # all rows leave no variance
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _variance(w, middle) <= allowed else (middle, high)
    return high


def _variance(w: Float64[Tensor, " n"], rows: int) -> float:
    p = inclusion(w, rows).probabilities
    return float(((1.0 / p - 1.0) * w.square()).sum())
