"""Output projection and cross-entropy in one, whose logits are never whole.

For a row x with label y, logits z = W x + b, smoothing ε and V classes,

    loss = logsumexp(z) − (1 − ε) z_y − ε/V Σ z        dz = softmax(z) − (1 − ε) e_y − ε/V
    dX = dZ W                                          dW = dZᵀ X            db = Σ dZ

so that rows are independent, and a few of them at a time (`PIECE`) suffice. Rows whose label is ignored have dz = 0: they
are left out, exactly. There are two ways, both exact up to rounding:

- "forward": the gradients are computed in the forward pass, where the logits of a piece are there anyway. Kept are dX and
  dW, no extra product is computed, and the backward pass multiplies them by the gradient of the loss.
- "again": kept are x, W, b and labels, which are there anyway. The backward pass computes the logits again, a third more
  products of the head.

**Sampled dW.** With a row estimator, `dW = Σ_j w_j dz_(i_j) x_(i_j)ᵀ` over the rows that it draws, by their norms, among
those with a label. It is unbiased as in any layer with an estimated dW; loss, dX and db stay exact. Rows that are not
drawn cost no product for dW.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from wtacrs.estimators import InputError
from wtacrs.estimators.core.scores import has_answers
from wtacrs.integration.layers.compression import autocast_dtype
from wtacrs.integration.layers.lean.embedding import note_dense_gradient
from wtacrs.integration.layers.lean.options import HeadMode

PIECE = 2**25
"""Bytes of logits that are computed at a time."""

Reduction = Literal["mean", "sum", "none"]


class Terms(NamedTuple):
    """What is computed, besides the tensors.

    Attributes:
        dtype: that the logits are computed in, as autocast would.
        ignore_index: label of rows that do not count.
        smoothing: ε.
        reduction: of the losses of rows; "mean" is over those that count.
        drawn: how many rows have a weight, where numbers do not tell it (in a simulated step).
    """

    dtype: torch.dtype
    ignore_index: int = -100
    smoothing: float = 0.0
    reduction: Reduction = "mean"
    drawn: int = 0


class _Head(NamedTuple):
    """The tensors of a linear + cross-entropy: x `[n, d]`, W `[V, d]`, b `[V]`, labels `[n]`, row weights `[n]`."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    labels: Tensor
    row_weights: Tensor | None


class _Gradients(NamedTuple):
    dx: Tensor | None
    dw: Tensor | None
    db: Tensor | None


def _losses(head: _Head, terms: Terms) -> Float[Tensor, " n"]:
    """Of all rows, 0 where the label is ignored."""
    losses = head.x.new_zeros(len(head.x), dtype=working_dtype(terms.dtype))
    weight, bias = _cast(head, terms)
    for rows, _ in _pieces(head, terms, len(weight)):
        logits = _logits(head.x[rows], weight, bias, terms)
        losses[rows] = _row_losses(logits, head.labels[rows], terms, torch.logsumexp(logits, 1))
    return losses


def _losses_and_gradients(
    head: _Head, terms: Terms, scale: Tensor | None, needs: Sequence[bool]
) -> tuple[Float[Tensor, " n"], _Gradients]:
    """Losses of all rows and the gradients of `Σ scale_i loss_i`; `scale` is one number, one per row, or None for 1."""
    x, labels = head.x, head.labels
    weight, bias = _cast(head, terms)
    losses = x.new_zeros(len(x), dtype=working_dtype(terms.dtype))
    dx = torch.zeros_like(x) if needs[0] else None
    dw = torch.zeros_like(head.weight) if needs[1] else None
    db = torch.zeros_like(head.bias) if needs[2] and head.bias is not None else None
    for rows, of_dw in _pieces(head, terms, len(weight)):
        part, label = x[rows], labels[rows]
        logits = _logits(part, weight, bias, terms)
        lse = torch.logsumexp(logits, 1)
        losses[rows] = _row_losses(logits, label, terms, lse)
        dz = logits.sub_(lse[:, None]).exp_()
        if terms.smoothing:
            dz.sub_(terms.smoothing / dz.shape[1])
        dz.scatter_add_(1, label[:, None], dz.new_full((len(dz), 1), terms.smoothing - 1.0))
        if scale is not None:
            dz.mul_(scale if scale.ndim == 0 else scale[rows, None])
        if db is not None:
            db += dz.sum(0).to(db.dtype)
        dz = dz.to(terms.dtype)
        if dx is not None:
            dx[rows] = (dz @ weight).to(dx.dtype)
        if dw is not None and of_dw:
            if head.row_weights is not None:
                part = part * head.row_weights[rows, None]  # weighted before it is rounded to half precision
                if terms.dtype == torch.float16:  # weights reach n/k and beyond
                    part, dz = part.float(), dz.float()
            _add_product(dw, dz, part.to(dz.dtype))
    return losses, _Gradients(dx, dw, db)


def _add_product(dw: Tensor, dz: Tensor, x: Tensor) -> None:
    if dw.dtype == dz.dtype:
        dw.addmm_(dz.T, x)
    else:
        dw.add_(dz.T @ x)


def _cast(head: _Head, terms: Terms) -> tuple[Tensor, Tensor | None]:
    return head.weight.to(terms.dtype), None if head.bias is None else head.bias.to(terms.dtype)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Of losses and softmax: single precision at least, as the losses of transformers cast."""
    return torch.promote_types(dtype, torch.float32)


def _logits(x: Tensor, weight: Tensor, bias: Tensor | None, terms: Terms) -> Float[Tensor, "r V"]:
    return F.linear(x.to(terms.dtype), weight, bias).to(working_dtype(terms.dtype))


def _row_losses(logits: Tensor, labels: Tensor, terms: Terms, lse: Tensor) -> Float[Tensor, " r"]:
    of_label = logits.gather(1, labels[:, None]).squeeze(1)
    if not terms.smoothing:
        return lse - of_label
    return lse - (1.0 - terms.smoothing) * of_label - terms.smoothing * logits.mean(1)


Rows = slice | Int[Tensor, " r"]


def _pieces(head: _Head, terms: Terms, classes: int) -> Iterator[tuple[Rows, bool]]:
    """Rows with a label, a piece at a time, and whether they count in dW: first those that do."""
    step = max(1, PIECE // (classes * working_dtype(terms.dtype).itemsize))
    counted = head.labels != terms.ignore_index
    if head.row_weights is None:
        found = counted.nonzero().squeeze(1)
        if len(found) == len(counted):  # no copies
            yield from ((slice(i, min(i + step, len(counted))), True) for i in range(0, len(counted), step))
            return
        groups = [(found, True)]
    else:
        drawn = head.row_weights != 0
        groups = [((counted & drawn).nonzero().squeeze(1), True), ((counted & ~drawn).nonzero().squeeze(1), False)]
        if has_answers(drawn):
            found = counted.nonzero().squeeze(1)
            groups = [(found[: terms.drawn], True), (found[terms.drawn :], False)]
    for rows, of_dw in groups:
        yield from ((rows[i : i + step], of_dw) for i in range(0, len(rows), step))


def _reduced(losses: Tensor, labels: Tensor, terms: Terms) -> Tensor:
    if terms.reduction == "none":
        return losses
    return losses.sum() if terms.reduction == "sum" else losses.sum() / (labels != terms.ignore_index).sum()


class LinearCrossEntropy(torch.autograd.Function):
    """Linear + cross-entropy with the gradients computed in the forward pass; for a loss that is one number."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "n d"],
        weight: Float[Tensor, "V d"],
        bias: Float[Tensor, " V"] | None,
        labels: Int[Tensor, " n"],
        row_weights: Float[Tensor, " n"] | None,
        terms: Terms,
    ) -> Float[Tensor, ""]:
        """The loss; saves dX, dW and db."""
        head = _Head(x, weight, bias, labels, row_weights)
        count = (labels != terms.ignore_index).sum()
        # fp16 could not hold what is divided by many rows; it is divided when GradScaler's factor is known
        ctx.later = terms.dtype == torch.float16
        scale = count.to(working_dtype(terms.dtype)).reciprocal() if terms.reduction == "mean" else None
        with torch.autocast(x.device.type, enabled=False):
            losses, found = _losses_and_gradients(head, terms, None if ctx.later else scale, ctx.needs_input_grad)
        ctx.save_for_backward(*found, scale if ctx.later else None)
        return _reduced(losses, labels, terms)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Float[Tensor, ""]) -> tuple[Tensor | None, ...]:
        """What was saved, times the gradient of the loss."""
        *found, scale = ctx.saved_tensors
        if found[1] is not None:
            note_dense_gradient(ctx, 1)
        factor = dloss if scale is None else dloss * scale
        if factor.device.type != "cpu" or float(factor) != 1.0:
            keep = torch._C._autograd._get_current_graph_task_keep_graph()
            found = [None if g is None else _times(g, factor, in_place=not keep) for g in found]
        return *found, None, None, None


def _times(g: Tensor, factor: Tensor, *, in_place: bool) -> Tensor:
    if g.dtype in (torch.float16, torch.bfloat16):  # GradScaler's factor is infinite in fp16
        return (g.float() * factor).to(g.dtype)
    return g.mul_(factor) if in_place else g * factor


class LinearCrossEntropyAgain(torch.autograd.Function):
    """Linear + cross-entropy that keeps its inputs and computes the logits again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "n d"],
        weight: Float[Tensor, "V d"],
        bias: Float[Tensor, " V"] | None,
        labels: Int[Tensor, " n"],
        row_weights: Float[Tensor, " n"] | None,
        terms: Terms,
    ) -> Float[Tensor, "*n"]:
        """The loss, or the losses of rows."""
        ctx.terms = terms
        ctx.save_for_backward(x, weight, bias, labels, row_weights)
        with torch.autocast(x.device.type, enabled=False):
            return _reduced(_losses(_Head(x, weight, bias, labels, row_weights), terms), labels, terms)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Float[Tensor, "*n"]) -> tuple[Tensor | None, ...]:
        """The gradients, from the logits computed again."""
        head, terms = _Head(*ctx.saved_tensors), ctx.terms
        if terms.reduction == "mean":
            dloss = dloss / (head.labels != terms.ignore_index).sum()
        with torch.autocast(head.x.device.type, enabled=False):
            _, found = _losses_and_gradients(head, terms, dloss, ctx.needs_input_grad)
        if found.dw is not None:
            note_dense_gradient(ctx, 1)
        return *found, None, None, None


def linear_cross_entropy(
    x: Float[Tensor, "n d"],
    weight: Float[Tensor, "V d"],
    bias: Float[Tensor, " V"] | None,
    labels: Int[Tensor, " n"],
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    mode: HeadMode = "forward",
    row_weights: Float[Tensor, " n"] | None = None,
    drawn: int = 0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """`F.cross_entropy(F.linear(x, weight, bias), labels, …)`, in single precision at least, of which no logits are kept.

    Args:
        x: rows.
        weight: W.
        bias: b, or None.
        labels: classes; those equal to `ignore_index` do not count.
        ignore_index: as in `F.cross_entropy`.
        label_smoothing: ε in [0, 1], as there.
        reduction: as there; "none" is computed "again", since its gradient is not known before.
        mode: "forward" computes the gradients in the forward pass, "again" the logits twice.
        row_weights: how often a row counts in dW, 0 for not at all; None for once.
        drawn: how many rows have a weight; asked where there are no numbers, in a simulated step.
        dtype: to compute logits and products in; None for what `F.linear` would under autocast.

    Raises:
        InputError: on a mode, reduction or smoothing that is none.
    """
    check_mode(mode)
    if reduction not in ("mean", "sum", "none"):
        raise InputError(f"reduction={reduction!r} must be mean, sum or none")
    if not 0.0 <= label_smoothing <= 1.0:
        raise InputError(f"label_smoothing={label_smoothing!r} must be in [0, 1]")
    terms = Terms(dtype or autocast_dtype(x), ignore_index, float(label_smoothing), reduction, drawn)
    if not torch.is_grad_enabled():
        with torch.autocast(x.device.type, enabled=False):
            return _reduced(_losses(_Head(x, weight, bias, labels, row_weights), terms), labels, terms)
    function = LinearCrossEntropy if mode == "forward" and reduction != "none" else LinearCrossEntropyAgain
    loss: Tensor = function.apply(x, weight, bias, labels, row_weights, terms)
    return loss


def check_mode(mode: object, argument: str = "mode") -> None:
    """Refuse what is no `HeadMode`.

    Raises:
        InputError: naming what is accepted.
    """
    if mode not in get_args(HeadMode):
        raise InputError(f"{argument}={mode!r} must be forward or again")
