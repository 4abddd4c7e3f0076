"""What a sampler may know of the sizes of a layer's rows: nothing but x, an earlier dY, or all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from wtacrs.estimators import InputError, joint_norms, row_norms
from wtacrs.estimators.scores import check_rows_agree
from wtacrs.validation.records import ScoreKind

SCORE_KINDS: tuple[ScoreKind, ...] = ("oracle", "row norms")
"""What every capture has; "stale" needs the norms of an earlier state."""
STALE_FLOOR = 0.1
"""ε of the stale scores: the share of the probability that is spread evenly, so that a stale zero stays reachable."""


@runtime_checkable
class LayerLike(Protocol):
    """One layer's captured activations, such as `captures.LayerCapture`; `mask` is False at padding rows."""

    @property
    def x(self) -> Float[Tensor, "n d"]:
        """Input rows."""

    @property
    def dy(self) -> Float[Tensor, "n m"]:
        """Output gradients."""

    @property
    def mask(self) -> Bool[Tensor, " n"]:
        """Rows that are no padding."""


def layer_scores(
    kind: ScoreKind,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    mask: Bool[Tensor, " n"] | None = None,
    stale: Float[Tensor, " n"] | None = None,
    *,
    layer: str | None = None,
) -> Float64[Tensor, " n"]:
    """Scores of one kind, zero at masked rows: "oracle" `‖x_i‖‖y_i‖`, "row norms" `‖x_i‖`, "stale" (below).

    With `w_i = ‖x_i‖ · stale_i` the stale scores are `(1 − ε) w_i / Σw + ε / N` over the N unmasked rows,
    ε = `STALE_FLOOR`: a row whose gradient was zero then may carry one now, and must stay reachable for the estimate
    to be unbiased. If every `w_i` is zero they are the row norms.

    Args:
        kind: of scores.
        x: input rows.
        dy: output gradients.
        mask: False at padding rows.
        stale: row norms of dY at an earlier state of the training; used by "stale" alone.
        layer: name for the messages.

    Raises:
        InputError: on another kind, a mask of another shape or dtype, or stale scores without usable stale norms.
    """
    known = (*SCORE_KINDS, "stale")
    if kind not in known:
        raise InputError(f"scores={kind!r} must be one of {', '.join(map(repr, known))}")
    check_rows_agree(x, dy)
    if mask is not None and (mask.shape != x.shape[:1] or mask.dtype != torch.bool):
        raise InputError(f"mask must be bool of shape [{x.shape[0]}], got {mask.dtype} {list(mask.shape)}")
    if kind == "stale":
        return _stale_scores(x, mask, _checked_stale(stale, x, layer))
    scores = joint_norms(x, dy) if kind == "oracle" else row_norms(x)
    return scores if mask is None else torch.where(mask, scores, 0.0)


def _checked_stale(stale: Tensor | None, x: Tensor, layer: str | None) -> Tensor:
    where = "" if layer is None else f"layer {layer!r}: "
    if stale is None:
        raise InputError(
            f"{where}scores='stale' need the norms of an earlier state, which were not captured; "
            "`wtacrs capture --after STEPS --age A` captures them"
        )
    if stale.shape != x.shape[:1]:
        raise InputError(f"{where}stale must have shape [{x.shape[0]}], got {list(stale.shape)}")
    if not bool((torch.isfinite(stale) & (stale >= 0)).all()):
        raise InputError(f"{where}stale must be finite and ≥ 0 in every row")
    return stale


def _stale_scores(x: Tensor, mask: Tensor | None, stale: Tensor) -> Float64[Tensor, " n"]:
    norms = row_norms(x)
    counted = torch.ones_like(norms, dtype=torch.bool) if mask is None else mask
    norms = torch.where(counted, norms, 0.0)
    guess = norms * stale
    total, rows = guess.sum(), counted.sum().clamp(min=1)
    mixture = (1 - STALE_FLOOR) * guess / torch.where(total > 0, total, 1.0) + STALE_FLOOR / rows
    return torch.where(total > 0, torch.where(counted, mixture, 0.0), norms)


def default_scores(
    captures: Mapping[str, LayerLike], layers: Iterable[str] | None = None
) -> tuple[ScoreKind, ...]:
    """The kinds that all of the chosen layers (default: every one) have: "stale" too where each has stale norms."""
    chosen = list(captures if layers is None else layers)
    has_stale = bool(chosen) and all(getattr(captures[layer], "stale", None) is not None for layer in chosen)
    return (*SCORE_KINDS, "stale") if has_stale else SCORE_KINDS
