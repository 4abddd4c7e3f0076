"""Attention that keeps q, k, v and no probabilities, for transformers' `AttentionInterface`.

With S = scale · QKᵀ + bias, P = softmax(S), M the dropout mask and O = (P ∘ M) V / (1 − p), the backward pass computes P
again from q and k, a piece at a time:

    dV = (P ∘ M)ᵀ dO / (1 − p)      dP = M ∘ (dO Vᵀ) / (1 − p)      dS = P ∘ (dP − rowsum(P ∘ dP))
    dQ = scale · dS K               dK = scale · dSᵀ Q              dbias = dS, summed over what it was broadcast over

Kept are q, k, v, bias and mask as they are given, and one bit per probability where there is dropout. The output is not
kept: the row sum that flash attention takes from it comes from P, so that the projection after it is its one owner. A
piece is a part of the batch, of the heads or of the rows whose scores fit a cache (`PIECE`). All of it is exact up to
rounding.

**Dropout.** On the CPU the generator is used as stock "eager" and "sdpa" use it: the same seed gives the same mask, bit
for bit, and leaves the generator in the same state. Where torch draws a tensor in one go otherwise than in parts (on
Intel processors with MKL), the whole mask of one layer is drawn first, a byte per probability for a moment. With
`quick`, four elements share a random number of 64 bits: p is rounded to a multiple of 1/65,536 and the mask is equal in
law only, at a quarter of the time. On CUDA, where no fused kernel applies, the mask is drawn by the kernel of stock
dropout.

**Masks.** Boolean (True takes part), additive (with its gradient, if it asks for one) or causal. A row to which nothing
is allowed is uniform in place of "eager" and 0 in place of "sdpa", as it was.

**What stays stock.** Eval mode, a forward pass without gradients, `torch.compile` and `torch.func` take the stock
implementation. So do a softcap, attention sinks and a paged cache; a `WtacrsWarning` says so. The Function has no
second derivative.

**Fused kernels.** Where `scaled_dot_product_attention` has a kernel that keeps no probabilities, it is taken, in place of
"eager" too: on the CPU without dropout and bias, on CUDA with dropout as well, which it draws as stock "sdpa" does there.
Such a kernel keeps the output and the row sums besides, and is twice as fast on a CPU. A position bias goes through the
Function: the kernels would be given bias and mask as one tensor of the size of the scores for every layer.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch._C import _functorch
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from wtacrs.estimators import WtacrsWarning
from wtacrs.integration.layers.compression import as_autocast
from wtacrs.integration.layers.lean.bits import pack, unpack
from wtacrs.integration.parallel.wrappers import unwrapped

PIECE = 2**21
"""Bytes of scores that are computed at a time on a CPU; 64 times as many on other devices, whose kernels are launched."""

Stock = Literal["eager", "sdpa"]
_NAMES: dict[tuple[Stock, bool], str] = {
    ("eager", False): "wtacrs_lean_eager",
    ("sdpa", False): "wtacrs_lean_sdpa",
    ("eager", True): "wtacrs_lean_eager_quick",
    ("sdpa", True): "wtacrs_lean_sdpa_quick",
}
_STOCK = {name: stock for (stock, _), name in _NAMES.items()}
_REFUSED = {"softcap": "a softcap", "s_aux": "attention sinks", "cache": "a paged cache"}
_FOURTH = 16  # random bits of an element in a quick draw


class Terms(NamedTuple):
    """What is computed, besides the tensors.

    Attributes:
        scale: what QKᵀ is multiplied by.
        dropout: probability p in [0, 1) that a probability is dropped.
        causal: whether row i sees columns 0 … i alone.
        stock: whose rows without any allowed column these are.
        quick: whether the dropout mask is drawn by 16 bits each.
    """

    scale: float
    dropout: float = 0.0
    causal: bool = False
    stock: Stock = "sdpa"
    quick: bool = False

    @property
    def kept(self) -> float:
        """Probability that an element is kept, as it is drawn."""
        return 1.0 - round(self.dropout * 2**_FOURTH) / 2**_FOURTH if self.quick else 1.0 - self.dropout


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
        draws = _Draws(q, k.shape[2], terms) if terms.dropout else None
        with torch.autocast(q.device.type, enabled=False):
            for piece in _pieces_of(q, k):
                p = _probabilities(q, k, bias, mask, terms, piece)
                if draws is not None:
                    p.mul_(draws.next(p.shape, piece).view(torch.uint8).to(p.dtype))
                mixed = torch.bmm(_folded(p, piece).to(v.dtype), _keys(v, piece)).view(*p.shape[:3], -1)
                if draws is not None:
                    mixed.mul_(1.0 / terms.kept)
                out[piece.batch, piece.rows, piece.heads].copy_(mixed.transpose(1, 2))
        ctx.terms = terms
        ctx.save_for_backward(q, k, v, bias, mask, None if draws is None else draws.bits)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Float[Tensor, "b s h e"]) -> tuple[Tensor | None, ...]:
        """dQ, dK, dV and the gradients of what is added to the scores."""
        q, k, v, bias, mask, bits = ctx.saved_tensors
        terms: Terms = ctx.terms
        cut = _pieces_of(q, k)
        sums = _Sums(q, k, v, split=_share_keys(cut, q, k))
        added = [
            _zeros(t) if needed else None
            for t, needed in zip((bias, mask), ctx.needs_input_grad[3:5], strict=True)
        ]
        start = 0
        with torch.autocast(q.device.type, enabled=False):
            for piece in cut:
                p = _probabilities(q, k, bias, mask, terms, piece)
                do = _folded(dout[piece.batch, piece.rows, piece.heads].transpose(1, 2), piece).to(v.dtype)
                dropped, keep = p, None
                if bits is not None:
                    end = start + _bytes(p.numel())
                    keep = unpack(bits[start:end], p.shape, p.dtype)
                    start = end
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


class _Draws:
    """Dropout masks of one call, piece by piece, and their bits."""

    def __init__(self, q: Tensor, t: int, terms: Terms) -> None:
        b, heads, s, _ = q.shape
        self._terms, self._device = terms, q.device
        self._whole: Tensor | None = None
        if not terms.quick and not _drawn_in_parts(q.device.type):
            self._whole = _stock_keep((b, heads, s, t), terms.dropout, q)
        self._packed: list[Tensor] = []

    def next(self, shape: torch.Size, piece: Piece) -> Bool[Tensor, "c n r t"]:
        """True where a probability is kept; the bits of it are noted."""
        if self._terms.quick:
            keep = quick_keep(shape, self._terms.dropout, self._device)
        elif self._whole is not None:
            keep = self._whole[piece.batch, piece.heads, piece.rows].contiguous()
        else:
            keep = torch.empty(shape, dtype=torch.bool, device=self._device).bernoulli_(self._terms.kept)
        self._packed.append(pack(keep.view(torch.uint8)))
        return keep

    @property
    def bits(self) -> UInt8[Tensor, " bytes"]:
        """Of all pieces."""
        return self._packed[0] if len(self._packed) == 1 else torch.cat(self._packed)


@cache
def _drawn_in_parts(kind: str) -> bool:
    """Whether this build of torch draws a tensor on such a device as it draws its parts one after the other."""
    if kind != "cpu":
        return False
    with _disable_current_modes():  # the numbers are asked for, and no bytes of a step
        return _cpu_draws_in_parts()


def _cpu_draws_in_parts() -> bool:
    whole, parts = (torch.empty(4 * 4096, dtype=torch.bool) for _ in range(2))
    one, other = (torch.Generator().manual_seed(1) for _ in range(2))
    whole.bernoulli_(0.5, generator=one)
    for part in parts.view(4, -1):
        part.bernoulli_(0.5, generator=other)
    return torch.equal(whole, parts) and torch.equal(one.get_state(), other.get_state())


def _stock_keep(shape: tuple[int, ...], dropout: float, q: Tensor) -> Bool[Tensor, "b h s t"]:
    if q.device.type == "cpu":
        return torch.empty(shape, dtype=torch.bool).bernoulli_(1.0 - dropout)
    return torch.native_dropout(q.new_empty(shape), dropout, True)[1]


def quick_keep(shape: torch.Size, dropout: float, device: torch.device) -> Bool[Tensor, ...]:
    """True with the probability that `Terms.kept` says, from 16 random bits each."""
    n = shape.numel()
    words = torch.empty((n + 3) // 4, dtype=torch.int64, device=device).random_(-(2**63), None)
    least = round(dropout * 2**_FOURTH) - 2 ** (_FOURTH - 1)
    return (words.view(torch.int16)[:n] >= least).view(shape)


def _bytes(n: int) -> int:
    return (n + 7) // 8


def lean_attention(
    module: nn.Module,
    query: Float[Tensor, "b h s d"],
    key: Float[Tensor, "b g t d"],
    value: Float[Tensor, "b g t e"],
    attention_mask: Tensor | None,
    *,
    stock: Stock = "sdpa",
    quick: bool = False,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Float[Tensor, "#b #h #s #t"] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """What `AttentionInterface` calls.

    Args:
        module: the attention layer.
        query: q.
        key: k, of as many heads as the queries, or a divisor of it.
        value: v, likewise.
        attention_mask: boolean (True takes part) or additive, broadcast to the scores, or None.
        stock: what it stands for, and what runs instead where it cannot.
        quick: see `Terms`.
        dropout: as the module asks for in this mode.
        scaling: of the scores; None for d^(-1/2).
        is_causal: None for what the module says.
        position_bias: added to the scores, with its gradient.
        **kwargs: of the model, which stock attention gets too.

    Returns:
        The output `[b, s, h, e]`, and no probabilities (those of the stock implementation where that ran).

    Warns:
        WtacrsWarning: once for each kind of module, where it asks for what this attention cannot do.
    """
    run_stock = partial(
        _stock_attention,
        stock, module, query, key, value, attention_mask,
        dropout=dropout, scaling=scaling, is_causal=is_causal, position_bias=position_bias, **kwargs,
    )  # fmt: skip
    if not module.training or not torch.is_grad_enabled() or torch.compiler.is_compiling() or _within_functorch():
        return run_stock()
    reason = _refusal(query, key, attention_mask, dropout, kwargs)
    if reason is not None:
        _tell(type(module).__name__, stock, reason)
        return run_stock()
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    causal = causal and attention_mask is None and query.shape[2] > 1
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    terms = Terms(float(scale), float(dropout), causal, stock, quick)
    q, k, v = as_autocast(query), as_autocast(key), as_autocast(value)
    mask = _four(attention_mask)
    if position_bias is None and _has_fused_kernel(q, k, v, mask, terms):
        return _fused(q, k, v, mask, terms), None
    return LeanAttention.apply(q, k, v, _four(position_bias), mask, terms), None


def _four(t: Tensor | None) -> Tensor | None:
    return t if t is None or t.ndim == 4 else t.view(*(1,) * (4 - t.ndim), *t.shape)


def _within_functorch() -> bool:
    return _functorch.peek_interpreter_stack() is not None


def _refusal(
    query: Tensor, key: Tensor, mask: Tensor | None, dropout: float, kwargs: dict[str, Any]
) -> str | None:
    for name, what in _REFUSED.items():
        if kwargs.get(name) is not None:
            return what
    if kwargs.get("output_attentions"):
        return "output_attentions"
    if dropout >= 1.0:
        return f"dropout={dropout}"
    if query.shape[1] % key.shape[1] or query.shape[0] != key.shape[0]:
        return f"queries {list(query.shape)} beside keys {list(key.shape)}"
    if mask is not None and mask.dtype != torch.bool and not mask.is_floating_point():
        return f"a mask of {mask.dtype}"
    return None


@cache
def _tell(module: str, stock: str, reason: str) -> None:
    warnings.warn(
        f"{module}: {reason} is not lean; {stock} attention runs and keeps all", WtacrsWarning, stacklevel=2
    )


def _has_fused_kernel(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, terms: Terms) -> bool:
    """Whether `scaled_dot_product_attention` has a kernel that keeps no probabilities and gives what stock gives."""
    choice = torch._fused_sdp_choice(
        q, k, v, mask, terms.dropout, terms.causal, scale=terms.scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    if choice <= SDPBackend.MATH.value:
        return False
    closes = mask is not None and mask.dtype == torch.bool and terms.stock == "eager"
    return not closes or bool(mask.any(-1).all())  # type: ignore[union-attr]


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, terms: Terms) -> Float[Tensor, "b s h e"]:
    out = nn.functional.scaled_dot_product_attention(
        q, k, v, _additive(mask, q.dtype), terms.dropout, terms.causal,
        scale=terms.scale, enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    return out.transpose(1, 2).contiguous()


_additive_of: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Boolean mask → what it adds to the scores, for the layers that share it: the kernels would keep one for each."""


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if mask is None or mask.dtype != torch.bool:
        return mask
    version, found = _additive_of.get(mask, (None, None))
    if found is None or found.dtype != dtype or version != mask._version:
        found = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)
        _additive_of[mask] = (mask._version, found)
    return found


def _stock_attention(
    stock: Stock,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The implementation in whose place the lean one stands, with a mask as it reads it."""
    eager = _eager_of(type(module)) if stock == "eager" else None
    if eager is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    mask = attention_mask
    causal = kwargs.pop("is_causal", None)
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if mask is None and causal and query.shape[2] > 1:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril_()[None, None]
    if mask is not None and mask.dtype == torch.bool:
        lowest = torch.finfo(query.dtype).min
        mask = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill_(~mask, lowest)
    if kwargs.get("position_bias") is None:
        kwargs.pop("position_bias", None)  # not all functions know it
    found: tuple[Tensor, Tensor | None] = eager(module, query, key, value, mask, **kwargs)
    return found


def _eager_of(kind: type) -> Callable[..., Any] | None:
    """The function that transformers has beside every attention layer."""
    for base in kind.__mro__:
        found = getattr(sys.modules.get(base.__module__), "eager_attention_forward", None)
        if callable(found):
            return found
    return None


for (_stock, _quick), _name in _NAMES.items():
    AttentionInterface.register(_name, partial(lean_attention, stock=_stock, quick=_quick))
    AttentionMaskInterface.register(_name, sdpa_mask)


def set_lean_attention(model: nn.Module, *, quick: bool = False) -> dict[str, str]:
    """Let every model of transformers within a model use lean attention, in place.

    Only the configs change, `config._attn_implementation`, which is not saved with a model.

    Args:
        model: any module; what it holds of transformers' models is asked one by one.
        quick: whether dropout masks may be equal in law only, at a quarter of the time.

    Returns:
        Name of a model within → why its attention stays stock; the empty name is the model itself. Empty if all of
        them are lean.
    """
    reasons = {}
    for name, part in _models(unwrapped(model)):
        stock = _STOCK.get(part.config._attn_implementation, part.config._attn_implementation)
        reason = _reason(part, stock)
        if reason is None:
            part.config._attn_implementation_internal = _NAMES[stock, quick]
        else:
            reasons[name] = reason
    known = {id(part.config) for _, part in _models(unwrapped(model))}
    for name, module in unwrapped(model).named_modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation") and id(config) not in known:
            reasons[name] = f"the config of this {type(module).__name__} belongs to no model of transformers"
    return reasons


def restore_attention(model: nn.Module) -> list[str]:
    """Undo `set_lean_attention`.

    Returns:
        Names of the models within that are stock again.
    """
    names = []
    for name, part in _models(unwrapped(model)):
        stock = _STOCK.get(part.config._attn_implementation)
        if stock is not None:
            part.config._attn_implementation_internal = stock
            names.append(name)
    return names


def _models(model: nn.Module) -> Iterator[tuple[str, PreTrainedModel]]:
    """Models of transformers within, one for every config."""
    seen = set()
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel) and id(module.config) not in seen:
            seen.add(id(module.config))
            yield name, module


def _reason(model: PreTrainedModel, stock: str | None) -> str | None:
    kind = type(model).__name__
    if stock not in ("eager", "sdpa"):
        return f"its attention is {stock}"
    if not model._can_set_attn_implementation():
        return f"{kind} does not go through AttentionInterface"
    if not model._supports_sdpa:
        return f"{kind} does not support sdpa: its attention computes more than a masked softmax"
    if _overrides(model):
        return f"{kind} has an attention function of its own"
    if stock == "eager" and _eager_of(type(model)) is None:
        return f"{kind} has no eager_attention_forward beside it to go back to"
    return None


def _overrides(model: PreTrainedModel) -> bool:
    """Whether the module of a model registers functions that are not everyone's."""
    own = getattr(sys.modules.get(type(model).__module__), "ALL_ATTENTION_FUNCTIONS", None)
    return bool(getattr(own, "_local_mapping", None))
