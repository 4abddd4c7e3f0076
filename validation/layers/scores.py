"""What a sampler may know of the sizes of a layer's rows: nothing but x, an earlier dY, or all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from wtacrs.estimators import InputError, joint_norms, row_norms
from wtacrs.estimators.core.checks import check_rows_agree
from wtacrs.estimators.core.scores import STALE_FLOOR, floored_scores
from wtacrs.validation.records.base import ScoreKind

__all__ = ["SCORE_KINDS", "STALE_FLOOR", "LayerLike", "default_scores", "layer_scores", "stream_name"]

SCORE_KINDS: tuple[ScoreKind, ...] = ("oracle", "row-norms")
"""What every capture has; "stale" needs the norms of an earlier state."""


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
    """Scores of one kind, zero at masked rows: "oracle" `‖x_i‖‖y_i‖`, "row-norms" `‖x_i‖`, "stale" (below).

    The stale scores are `floored_scores` of the stale norms, with ε = `STALE_FLOOR`: a row whose gradient was zero then
    may carry one now, and must stay reachable for the estimate to be unbiased.

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
        return floored_scores(row_norms(x), _checked_stale(stale, x, layer), mask)
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


def stream_name(kind: ScoreKind) -> str:
    """How a kind is spelled in the keys of random streams: with a space, so that they stay those of older results."""
    return kind.replace("-", " ")


def default_scores(
    captures: Mapping[str, LayerLike], layers: Iterable[str] | None = None
) -> tuple[ScoreKind, ...]:
    """The kinds that all of the chosen layers (default: every one) have: "stale" too where each has stale norms."""
    chosen = list(captures if layers is None else layers)
    has_stale = bool(chosen) and all(getattr(captures[layer], "stale", None) is not None for layer in chosen)
    return (*SCORE_KINDS, "stale") if has_stale else SCORE_KINDS
