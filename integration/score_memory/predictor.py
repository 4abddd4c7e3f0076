"""A predictor of ‖y_i‖ from x_i and the place of the row, fitted to a few rows at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from wtacrs.integration.score_memory.seen_rows import PLACE_FEATURES, SeenRows

RANGE = 6.0
"""Predicted logarithms lie within ± this of their mean over a batch: no two norms differ by more than a factor of e¹²."""
DECAY = 0.95
"""Weight of what was known of a feature's variance before."""
FIT_FLOOR = 0.3
"""ε of the probabilities that a fit is for: a row of which too little is expected costs no more than that allows."""
PLACE_WEIGHT = 0.3
"""How far the features of the place count, over all features of x together."""
_LEAST_VARIANCE = 0.01
_BLOCK_NUMBERS = 2**22


class Predictor(NamedTuple):
    """`log ‖y_i‖ ≈ v · (x_i, place of i) / scale`, up to a constant that differs from batch to batch.

    Attributes:
        v: by standardised feature, those of the place last.
        variances: running variances of the features.
        fits: to how many samples it was fitted.
    """

    v: Float32[Tensor, " features"]
    variances: Float32[Tensor, " features"]
    fits: Int64[Tensor, ""]

    @property
    def scale(self) -> Float32[Tensor, " features"]:
        """Standard deviations, with a hundredth of the mean variance added: no feature is divided by next to nothing."""
        of_x, of_place = (
            (part + (_LEAST_VARIANCE * part.mean()).clamp(min=torch.finfo(torch.float32).tiny)).sqrt()
            for part in self.variances.split([len(self.v) - PLACE_FEATURES, PLACE_FEATURES])
        )
        return torch.cat([of_x, of_place / (PLACE_WEIGHT * len(of_x) ** 0.5)])


def predicted(
    predictor: Predictor,
    x: Float[Tensor, "n d"],
    places: Float32[Tensor, "n features"],
    mask: Bool[Tensor, " n"] | None,
) -> Float64[Tensor, " n"]:
    """Guesses of ‖y_i‖ up to a factor: `exp` of the predicted logarithms, of which ± `RANGE` around their mean counts.

    Always finite and positive: a logarithm that is NaN counts as the mean.
    """
    direction = (predictor.v / predictor.scale).to(x.device)
    of_x, of_place = direction.split([x.shape[1], PLACE_FEATURES])
    blocks = x.detach().split(max(_BLOCK_NUMBERS // max(x.shape[1], 1), 1))
    with torch.autocast(x.device.type, enabled=False):
        logs = torch.cat([rows.float() @ of_x for rows in blocks]).double() + (places @ of_place).double()
    counted = logs.isfinite() if mask is None else mask & logs.isfinite()
    middle = torch.where(counted, logs, 0.0).sum() / counted.sum().clamp(min=1)
    return (logs - middle).nan_to_num(0.0, RANGE, -RANGE).clamp(-RANGE, RANGE).exp()


def fitted(before: Predictor | None, seen: SeenRows, squares: Float64[Tensor, " k"], rate: float) -> Predictor:
    """The predictor after one more sample of rows: a step down the second moment that its own scores would have.

    Of the k rows of the sample let `w_i = ‖x_i‖‖y_i‖`, `z_i` their features, centred over the sample and divided by
    `scale`, `π_i ∝ ‖x_i‖ exp(v · z_i)`, and `p_i = (1 − ε) π_i + ε/k` with ε = `FIT_FLOOR`. Drawn by p, one row has the
    second moment `M = Σ w_i²/p_i`. With the shares `a_i = w_i²/p_i² / M`, for which `Σ a_i p_i = 1`, the derivative by
    `f_i = v · z_i` is `−∂ log M/∂f_i = (1 − ε) π_i (a_i − Σ_j a_j π_j)`, and

        v ← v + rate · Σ_i z_i (−∂ log M/∂f_i) / mean ‖z_i‖².

    Only ratios of norms within the sample count, whatever the size of the loss. Absolute values of the derivatives add up
    to at most 2, so that no row, however large its gradient is, moves v far. A row with `y_i = 0` lowers what is expected
    of its like. (A regression of log ‖y_i‖ was measured: it looks most at the smallest norms, which matter least, and
    left on a GPT-2 all of the variance that this more than halves.) Left out are rows that are not there and what is not
    finite; of fewer than three rows, or without any gradient, nothing is learned.

    Args:
        before: the predictor so far; None for v = 0.
        seen: rows of an input, and their places.
        squares: ‖y_i‖² of these rows.
        rate: how far v moves.
    """
    with torch.autocast(seen.rows.device.type, enabled=False):  # a forward pass may be about to begin under it
        return _fitted(before, seen, squares, rate)


def _fitted(before: Predictor | None, seen: SeenRows, squares: Float64[Tensor, " k"], rate: float) -> Predictor:
    rows = seen.rows.float()
    good = (seen.places >= 0) & squares.isfinite() & rows.isfinite().all(1)
    count = good.sum().clamp(min=1)
    rows = torch.where(good.unsqueeze(1), rows, 0.0)
    centred = torch.where(good.unsqueeze(1), rows - rows.sum(0) / count, 0.0)
    variances = centred.square().sum(0) / count
    norms = torch.linalg.vector_norm(rows[:, :-PLACE_FEATURES], dim=1, dtype=torch.float64)
    weights = norms.square() * torch.where(good, squares, 0.0)
    weights = weights / weights.max().clamp(min=torch.finfo(torch.float64).tiny)
    enough = (good.sum() >= 3) & (weights > 0).any() & variances.isfinite().all() & weights.isfinite().all()
    if before is None:
        before = Predictor(torch.zeros_like(variances), variances, enough.new_zeros((), dtype=torch.int64))
    v, known, fits = (tensor.to(rows.device) for tensor in before)
    share = (1 / (fits + 1)).clamp(min=1 - DECAY)
    now = Predictor(v, torch.where(enough, known + share * (variances - known), known), fits + enough)
    z = centred / now.scale
    step = z.T @ _descent(weights, norms, (z @ v).double(), good).float()
    moved = v + rate * step * count / z.square().sum().clamp(min=torch.finfo(torch.float32).tiny)
    return now._replace(v=torch.where(enough & moved.isfinite().all(), moved, v))


def _descent(
    weights: Float64[Tensor, " k"],
    norms: Float64[Tensor, " k"],
    logs: Float64[Tensor, " k"],
    good: Bool[Tensor, " k"],
) -> Float64[Tensor, " k"]:
    """`−∂ log M/∂f` at `logs`, of which ± `RANGE` counts as in what is predicted; 0 at rows that are left out."""
    masses = torch.where(good, norms * logs.nan_to_num(0.0).clamp(-RANGE, RANGE).exp(), 0.0)
    own = masses / masses.sum().clamp(min=torch.finfo(torch.float64).tiny)
    p = torch.where(good, (1 - FIT_FLOOR) * own + FIT_FLOOR / good.sum().clamp(min=1), 1.0)
    shares = weights / p.square()
    shares = shares / (weights / p).sum().clamp(min=torch.finfo(torch.float64).tiny)
    return (1 - FIT_FLOOR) * own * (shares - (shares * own).sum())
