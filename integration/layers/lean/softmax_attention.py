"""Attention that keeps q, k, v and no probabilities, as a Function.

With S = scale · QKᵀ + bias, P = softmax(S), M the dropout mask and O = (P ∘ M) V / (1 − p), the backward pass computes P
again from q and k, a piece at a time:

    dV = (P ∘ M)ᵀ dO / (1 − p)      dP = M ∘ (dO Vᵀ) / (1 − p)      dS = P ∘ (dP − rowsum(P ∘ dP))
    dQ = scale · dS K               dK = scale · dSᵀ Q              dbias = dS, summed over what it was broadcast over

Kept are q, k, v, bias and mask as they are given, and one bit per probability where there is dropout. The output is not
kept: the row sum that flash attention takes from it comes from P, so that the projection after it is its one owner. A
piece is a part of the batch, of the heads or of the rows whose scores fit a cache (`PIECE`). All of it is exact up to
rounding.

With `again`, those of q, k, v that have a recipe are not kept either but made again: what they are projected from, often
the input of the norm before, and the weights of their projections are kept (see `recipes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from wtacrs.estimators.core.scores import has_answers
from wtacrs.integration.layers.lean.bits import unpack
from wtacrs.integration.layers.lean.derivatives import first_derivative_only
from wtacrs.integration.layers.lean.keep_masks import Draws, kept_probability
from wtacrs.integration.layers.lean.products import Together, packed_together

PIECE = 2**21
"""Bytes of scores that are computed at a time on a CPU; 64 times as many on other devices, whose kernels are launched."""

Stock = Literal["eager", "sdpa"]


class Terms(NamedTuple):
    """What is computed, besides the tensors.

    Attributes:
        scale: what QKᵀ is multiplied by.
        dropout: probability p in [0, 1) that a probability is dropped.
        causal: whether row i sees columns 0 … i alone.
        stock: whose rows without any allowed column these are.
        quick: whether the dropout mask is drawn by 16 bits each.
        again: whether q, k, v are made again where they have recipes.
    """

    scale: float
    dropout: float = 0.0
    causal: bool = False
    stock: Stock = "sdpa"
    quick: bool = False
    again: bool = False

    @property
    def kept(self) -> float:
        """Probability that an element is kept, as it is drawn."""
        return kept_probability(self.dropout, quick=self.quick)


class Piece(NamedTuple):
    """A part of the scores `[b, h, s, t]`: consecutive in memory, so that pieces in turn are drawn as the whole is."""

    batch: slice
    heads: slice
    keys: slice
    rows: slice

    def of(self, tensor: Tensor) -> Tensor:
        """Of a tensor that is broadcast to the scores."""
        parts = (self.batch, self.heads, self.rows)
        return tensor[
            tuple(part if n > 1 else slice(None) for n, part in zip(tensor.shape[:3], parts, strict=True))
        ]


def pieces(b: int, heads: int, groups: int, s: int, t: int, elements: int) -> Iterator[Piece]:
    """Cut scores `[b, heads, s, t]` into parts of at most about `elements` numbers, in the order of memory.

    Args:
        b: batch.
        heads: of the queries.
        groups: heads of keys and values; `heads` is a multiple.
        s: rows.
        t: columns.
        elements: numbers in a part; at least one row is in each.
    """
    shared = heads // groups
    whole = slice(0, s)
    if heads * s * t <= elements:
        for batch in _ranges(b, elements // max(1, heads * s * t)):
            yield Piece(batch, slice(0, heads), slice(0, groups), whole)
        return
    for i in range(b):
        one = slice(i, i + 1)
        if shared * s * t <= elements:
            for keys in _ranges(groups, elements // (shared * s * t)):
                yield Piece(one, slice(keys.start * shared, keys.stop * shared), keys, whole)
            continue
        for head in range(heads):
            key = head // shared
            for rows in _ranges(s, elements // t):
                yield Piece(one, slice(head, head + 1), slice(key, key + 1), rows)


def _ranges(n: int, step: int) -> Iterator[slice]:
    step = max(1, step)
    return (slice(i, min(i + step, n)) for i in range(0, n, step))


class LeanAttention(torch.autograd.Function):
    """softmax(scale · QKᵀ + bias + mask) V with dropout, of which q, k, v and a bit per probability are kept."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Float[Tensor, "b h s d"],
        k: Float[Tensor, "b g t d"],
        v: Float[Tensor, "b g t e"],
        bias: Float[Tensor, "#b #h #s #t"] | None,
        mask: Tensor | None,
        terms: Terms,
    ) -> Float[Tensor, "b s h e"]:
        """The output with the heads beside each other, as the next projection reads it."""
        b, heads, s, _ = q.shape
        out = q.new_empty(b, s, heads, v.shape[-1], dtype=v.dtype)
        draws = _draws(q, k, terms) if terms.dropout else None
        with torch.autocast(q.device.type, enabled=False):
            for piece, times in _told(_pieces_of(q, k), q):
                p = _probabilities(q, k, bias, mask, terms, piece)
                if draws is not None:
                    where = piece.batch, piece.heads, piece.rows
                    p.mul_(draws.next(p.shape, where, times=times).view(torch.uint8).to(p.dtype))
                mixed = torch.bmm(_folded(p, piece).to(v.dtype), _keys(v, piece)).view(*p.shape[:3], -1)
                if draws is not None:
                    mixed.mul_(1.0 / terms.kept)
                out[piece.batch, piece.rows, piece.heads].copy_(mixed.transpose(1, 2))
        ctx.terms = terms
        kept = _kept(q, k, v, again=terms.again)
        ctx.plans = kept.plans
        ctx.save_for_backward(bias, mask, None if draws is None else draws.bits, *kept.leaves)
        return out

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, dout: Float[Tensor, "b s h e"]) -> tuple[Tensor | None, ...]:
        """dQ, dK, dV and the gradients of what is added to the scores."""
        bias, mask, bits, *leaves = ctx.saved_tensors
        q, k, v = ctx.plans.make(tuple(leaves))
        terms: Terms = ctx.terms
        cut = _pieces_of(q, k)
        sums = _Sums(q, k, v, split=_share_keys(cut, q, k))
        added = [
            _zeros(t) if needed else None
            for t, needed in zip((bias, mask), ctx.needs_input_grad[3:5], strict=True)
        ]
        start = 0
        with torch.autocast(q.device.type, enabled=False):
            for piece, times in _told(cut, q):
                p = _probabilities(q, k, bias, mask, terms, piece)
                do = _folded(dout[piece.batch, piece.rows, piece.heads].transpose(1, 2), piece).to(v.dtype)
                dropped, keep = p, None
                if bits is not None:
                    size = _bytes(p.numel())
                    keep = unpack(bits[start : start + size], p.shape, p.dtype)
                    start += times * size
                    do = do * (1.0 / terms.kept)  # fewer numbers than P
                    dropped = p * keep
                dp = torch.bmm(do, _keys(v, piece).transpose(1, 2)).view(p.shape).to(p.dtype)
                if keep is not None:
                    dp.mul_(keep)
                sums.dv(piece, torch.bmm(_folded(dropped, piece).to(v.dtype).transpose(1, 2), do))
                ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
                for total in added:
                    if total is not None:
                        part = piece.of(total)
                        part.add_(ds.sum_to_size(part.shape))
                ds = _folded(ds, piece).mul_(terms.scale).to(q.dtype)
                sums.dq(piece, torch.bmm(ds, _keys(k, piece)))
                sums.dk(
                    piece, torch.bmm(ds.transpose(1, 2), _folded(q[piece.batch, piece.heads, piece.rows], piece))
                )
        dbias, dmask = (None if a is None else a.to(t.dtype) for a, t in zip(added, (bias, mask), strict=True))
        return *sums.results(q.dtype), dbias, dmask, None


def _draws(q: Tensor, k: Tensor, terms: Terms) -> Draws:
    b, heads, s, _ = q.shape
    return Draws((b, heads, s, k.shape[2]), terms.dropout, q, quick=terms.quick)


def _kept(q: Tensor, k: Tensor, v: Tensor, *, again: bool) -> Together:
    return packed_together((q, k, v)) if again else Together.of(q, k, v)


class _Sums:
    """dQ, dK and dV as they come in, piece by piece, laid out as the projections before them read their gradients."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, *, split: bool) -> None:
        self._split = split
        sizes = [(t.shape[0], t.shape[2], t.shape[1], t.shape[3]) for t in (q, k, v)]
        self._dq = q.new_empty(sizes[0])
        # parts of one sum are not rounded to half precision each
        make = partial(q.new_zeros, dtype=_working(q.dtype)) if split else q.new_empty
        self._dk, self._dv = make(sizes[1]), make(sizes[2])

    def dq(self, piece: Piece, rows: Tensor) -> None:
        target = self._dq[piece.batch, piece.rows, piece.heads].transpose(1, 2)
        target.copy_(rows.reshape(target.shape))

    def dk(self, piece: Piece, rows: Tensor) -> None:
        self._add(self._dk, piece, rows)

    def dv(self, piece: Piece, rows: Tensor) -> None:
        self._add(self._dv, piece, rows)

    def _add(self, total: Tensor, piece: Piece, rows: Tensor) -> None:
        target = total[piece.batch, :, piece.keys].transpose(1, 2)
        rows = rows.reshape(target.shape)
        target.add_(rows) if self._split else target.copy_(rows)

    def results(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        return self._dq.transpose(1, 2), self._dk.to(dtype).transpose(1, 2), self._dv.to(dtype).transpose(1, 2)


def _pieces_of(q: Tensor, k: Tensor) -> list[Piece]:
    b, heads, s, _ = q.shape
    size = _working(q.dtype).itemsize
    limit = PIECE if q.device.type == "cpu" else 64 * PIECE
    return list(pieces(b, heads, k.shape[1], s, k.shape[2], limit // size))


_ALIKE = 3


def _told(cut: list[Piece], q: Tensor) -> list[tuple[Piece, int]]:
    """Pieces, and for how many each stands: for itself, but in a simulated step.

    There pieces of one shape need the same bytes, and the third one as many as all later ones: those before it are let go
    one iteration late.
    """
    if not has_answers(q):
        return [(piece, 1) for piece in cut]
    alike: dict[tuple[int, ...], list[Piece]] = {}
    for piece in cut:
        alike.setdefault(tuple(part.stop - part.start for part in piece), []).append(piece)
    return [
        (piece, len(found) - _ALIKE + 1 if place == _ALIKE - 1 else 1)
        for found in alike.values()
        for place, piece in enumerate(found[:_ALIKE])
    ]


def _share_keys(cut: list[Piece], q: Tensor, k: Tensor) -> bool:
    """Whether several pieces add to the gradient of the same keys."""
    heads, rows = cut[0].heads, cut[0].rows
    return heads.stop - heads.start < q.shape[1] // k.shape[1] or rows.stop - rows.start < q.shape[2]


def _folded(t: Tensor, piece: Piece) -> Tensor:
    """`[c, h, r, n]` as one matrix for every head of the keys, the queries that share it below each other."""
    return t.reshape(t.shape[0] * (piece.keys.stop - piece.keys.start), -1, t.shape[-1])


def _keys(t: Tensor, piece: Piece) -> Tensor:
    return t[piece.batch, piece.keys].reshape(-1, t.shape[2], t.shape[3])


def _working(dtype: torch.dtype) -> torch.dtype:
    """Of softmax and sums: single precision at least."""
    return torch.promote_types(dtype, torch.float32)


def _zeros(t: Tensor) -> Tensor:
    return torch.zeros_like(t, dtype=_working(t.dtype))


def _probabilities(
    q: Tensor, k: Tensor, bias: Tensor | None, mask: Tensor | None, terms: Terms, piece: Piece
) -> Float[Tensor, "c n r t"]:
    """P of a piece, before dropout."""
    part = q[piece.batch, piece.heads, piece.rows]
    scores = torch.bmm(_folded(part, piece), _keys(k, piece).transpose(1, 2)).to(_working(q.dtype))
    scores = scores.view(*part.shape[:3], -1)
    if terms.scale != 1.0:
        scores.mul_(terms.scale)
    if bias is not None:
        scores.add_(piece.of(bias))
    added = _added(mask, terms, piece, scores)
    if added is not None:
        scores.add_(added)
    p = torch.softmax(scores, -1)
    if terms.stock == "sdpa" and mask is not None and added is not None:
        closed = (added == -torch.inf).all(-1, keepdim=True)
        if closed.device.type != "cpu" or bool(closed.any()):
            p.masked_fill_(closed, 0.0)
    return p


def _added(mask: Tensor | None, terms: Terms, piece: Piece, scores: Tensor) -> Float[Tensor, "#c #n #r t"] | None:
    """What a mask adds to the scores. Adding numbers is several times as fast as filling by a mask that is broadcast."""
    if mask is not None and mask.dtype != torch.bool:
        return piece.of(mask)
    if mask is not None:
        forbidden = ~piece.of(mask)
    elif terms.causal:
        rows = torch.arange(piece.rows.start, piece.rows.stop, device=scores.device)
        forbidden = torch.arange(scores.shape[-1], device=scores.device) > rows[:, None]
    else:
        return None
    empty = -torch.inf if terms.stock == "sdpa" else torch.finfo(scores.dtype).min
    return torch.zeros(forbidden.shape, dtype=scores.dtype, device=scores.device).masked_fill_(forbidden, empty)


def _bytes(n: int) -> int:
    return (n + 7) // 8
