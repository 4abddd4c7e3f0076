"""A linear predictor of log ‖y_i‖ from x_i, fitted to a few rows at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from wtacrs.integration.score_memory.seen_rows import SeenRows

RANGE = 6.0
"""Predicted logarithms lie within ± this of their mean over a batch: no two norms differ by more than a factor of e¹²."""
DECAY = 0.95
"""Weight of what was known of a feature's variance before."""
SMALL = 0.05
"""Norms far below this share of their root mean square count as that share: how small they are matters to no variance."""
_LEAST_VARIANCE = 0.01
_BLOCK_NUMBERS = 2**22


class Predictor(NamedTuple):
    """`log ‖y_i‖ ≈ v · x_i / scale`, up to a constant that differs from batch to batch.

    Attributes:
        v: by standardised feature.
        variances: running variances of the features.
        fits: to how many samples it was fitted.
    """

    v: Float32[Tensor, " d"]
    variances: Float32[Tensor, " d"]
    fits: Int64[Tensor, ""]

    @property
    def scale(self) -> Float32[Tensor, " d"]:
        """Standard deviations, with a hundredth of the mean variance added: no feature is divided by next to nothing."""
        least = (_LEAST_VARIANCE * self.variances.mean()).clamp(min=torch.finfo(torch.float32).tiny)
        return (self.variances + least).sqrt()


def predicted(
    predictor: Predictor, x: Float[Tensor, "n d"], mask: Bool[Tensor, " n"] | None
) -> Float64[Tensor, " n"]:
    """Guesses of ‖y_i‖ up to a factor: `exp` of the predicted logarithms, of which ± `RANGE` around their mean counts.

    Always finite and positive: a logarithm that is NaN counts as the mean.
    """
    direction = (predictor.v / predictor.scale).to(x.device)
    blocks = x.detach().split(max(_BLOCK_NUMBERS // max(x.shape[1], 1), 1))
    with torch.autocast(x.device.type, enabled=False):
        logs = torch.cat([(rows.float() @ direction).double() for rows in blocks])
    counted = logs.isfinite() if mask is None else mask & logs.isfinite()
    middle = torch.where(counted, logs, 0.0).sum() / counted.sum().clamp(min=1)
    return (logs - middle).nan_to_num(0.0, RANGE, -RANGE).clamp(-RANGE, RANGE).exp()


def fitted(before: Predictor | None, seen: SeenRows, squares: Float64[Tensor, " k"], ridge: float) -> Predictor:
    """The predictor after one more sample of rows, by affine projection.

    With the rows `z_i` of the sample, centred over it and divided by `scale`, and the centred targets

        t_i = ½ log(‖y_i‖² + c²),    c = `SMALL` × the root mean square of ‖y_i‖ over the sample,

    v moves by `Zᵀ (Z Zᵀ + λ I)⁻¹ (t − Z v)`: of all v' it has the least `‖t − Z v'‖² + λ ‖v' − v‖²`, where λ is `ridge`
    times the mean of ‖z_i‖². Centring takes away the scale of the batch, on which scores do not depend. Without c the
    smallest norms would decide, which matter to no variance. A row with `y_i = 0` has `t_i = log c`: rows that never get
    a gradient are learned to be small. Left out are rows that are not there and what is not finite; of fewer than three
    rows, or without any gradient, nothing is learned.

    Source: Ozeki & Umeda, Electronics and Communications in Japan 67-A (1984), the affine projection algorithm; with one
    row it is the normalised LMS.

    Args:
        before: the predictor so far; None for v = 0.
        seen: rows of an input.
        squares: ‖y_i‖² of these rows.
        ridge: λ over the mean of ‖z_i‖².
    """
    with torch.autocast(seen.rows.device.type, enabled=False):  # a forward pass may be about to begin under it
        return _fitted(before, seen, squares, ridge)


def _fitted(before: Predictor | None, seen: SeenRows, squares: Float64[Tensor, " k"], ridge: float) -> Predictor:
    rows = seen.rows.float()
    good = (seen.places >= 0) & squares.isfinite() & rows.isfinite().all(1)
    weights = good.float()
    count = weights.sum()
    rows = torch.where(good.unsqueeze(1), rows, 0.0)
    centred = (rows - rows.sum(0) / count.clamp(min=1)) * weights.unsqueeze(1)
    variances = centred.square().sum(0) / count.clamp(min=1)
    squares = torch.where(good, squares, 0.0)
    enough = (count >= 3) & (squares > 0).any() & variances.isfinite().all()
    if before is None:
        before = Predictor(torch.zeros_like(variances), variances, enough.new_zeros((), dtype=torch.int64))
    v, known, fits = (tensor.to(rows.device) for tensor in before)
    share = (1 / (fits + 1)).clamp(min=1 - DECAY)
    now = Predictor(v, torch.where(enough, known + share * (variances - known), known), fits + enough)
    z = centred / now.scale
    squares = squares / squares.max().clamp(min=torch.finfo(torch.float64).tiny)
    least = SMALL**2 * squares.sum() / count.clamp(min=1)
    logs = 0.5 * torch.where(good & enough, squares + least, 1.0).log().float()
    wanted = (logs - (logs * weights).sum() / count.clamp(min=1)) * weights
    gram = z @ z.T
    damping = ridge * gram.diagonal().sum() / count.clamp(min=1)
    gram = gram + torch.diag_embed(torch.where(good, damping, 1.0).clamp(min=torch.finfo(torch.float32).tiny))
    moved = v + z.T @ torch.linalg.solve_ex(gram, wanted - z @ v).result
    return now._replace(v=torch.where(enough & moved.isfinite().all(), moved, v))
