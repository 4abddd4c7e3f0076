"""Models whose attention keeps no probabilities, by transformers' `AttentionInterface` (see `softmax_attention`).

**Dropout.** On the CPU the generator is used as stock "eager" and "sdpa" use it: the same seed gives the same mask, bit
for bit, and leaves the generator in the same state. Where torch draws a tensor in one go otherwise than in parts (on
Intel processors with MKL), the whole mask of one layer is drawn first, a byte per probability for a moment. With
`quick`, four elements share a random number of 64 bits: p is rounded to a multiple of 1/65,536 and the mask is equal in
law only, at a quarter of the time. On CUDA, where no fused kernel applies, the mask is drawn by the kernel of stock
dropout.

**Again.** With mode "again", q, k, v that come from lean linear layers are not kept: the layer's input, often what the
norm before it keeps, and its weight are kept in their place, and the backward pass makes them again, for one more product
each. What the layers share, such as the norm's output or GPT-2's fused product, is made once. Between layer and attention
may be views, transposes, splits, rotary embeddings, a scaling, the sum of LoRA, and an empty cache (see `products`). What
is made otherwise is kept; so is all in non-reentrant checkpointing, and what comes from an input that neither the layer
nor a recipe keeps.

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

import itertools
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._C import _functorch
from torch.nn.attention import SDPBackend
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from wtacrs.estimators import InputError, WtacrsWarning
from wtacrs.integration.layers.compression import as_autocast
from wtacrs.integration.layers.lean.fused_attention import FusedAgain, fused
from wtacrs.integration.layers.lean.options import AttentionMode
from wtacrs.integration.layers.lean.softmax_attention import LeanAttention, Stock, Terms
from wtacrs.integration.parallel.wrappers import unwrapped

LayerMode = AttentionMode | Literal["stock"]
"""Of one attention layer."""


class _Way(NamedTuple):
    """What the name of an attention function in a config stands for."""

    stock: Stock
    mode: AttentionMode
    quick: bool

    @property
    def name(self) -> str:
        return "_".join(["wtacrs_lean", self.stock, self.mode, *(["quick"] if self.quick else [])])


_WAYS = {
    way.name: way
    for way in itertools.starmap(_Way, itertools.product(get_args(Stock), get_args(AttentionMode), (False, True)))
}
_MODE = "lean_attention"
_REFUSED = {"softcap": "a softcap", "s_aux": "attention sinks", "cache": "a paged cache"}


def lean_attention(
    module: nn.Module,
    query: Float[Tensor, "b h s d"],
    key: Float[Tensor, "b g t d"],
    value: Float[Tensor, "b g t e"],
    attention_mask: Tensor | None,
    *,
    stock: Stock = "sdpa",
    mode: AttentionMode = "keep",
    quick: bool = False,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Float[Tensor, "#b #h #s #t"] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """What `AttentionInterface` calls.

    Args:
        module: the attention layer; its attribute `lean_attention`, a `LayerMode`, goes before `mode`.
        query: q.
        key: k, of as many heads as the queries, or a divisor of it.
        value: v, likewise.
        attention_mask: boolean (True takes part) or additive, broadcast to the scores, or None.
        stock: what it stands for, and what runs instead where it cannot.
        mode: "keep" or "again" (see the module).
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
    chosen: LayerMode = vars(module).get(_MODE, mode)
    if chosen == "stock" or not module.training or not torch.is_grad_enabled():
        return run_stock()
    if torch.compiler.is_compiling() or _within_functorch():
        return run_stock()
    reason = _refusal(query, key, attention_mask, dropout, kwargs)
    if reason is not None:
        _tell(type(module).__name__, stock, reason)
        return run_stock()
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    causal = causal and attention_mask is None and query.shape[2] > 1
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    again = chosen == "again"
    terms = Terms(float(scale), float(dropout), causal, stock, quick, again)
    q, k, v = as_autocast(query), as_autocast(key), as_autocast(value)
    mask = _four(attention_mask)
    if position_bias is None and _has_fused_kernel(q, k, v, mask, terms):
        added = _additive(mask, q.dtype)
        return (FusedAgain.apply(q, k, v, added, terms) if again else fused(q, k, v, added, terms)), None
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


for _name, _way in _WAYS.items():
    AttentionInterface.register(_name, partial(lean_attention, **_way._asdict()))
    AttentionMaskInterface.register(_name, sdpa_mask)


def set_lean_attention(
    model: nn.Module,
    *,
    mode: AttentionMode = "keep",
    quick: bool = False,
    filter_fn: Callable[[nn.Module, str], bool] | None = None,
) -> dict[str, str]:
    """Let every model of transformers within a model use lean attention, in place.

    Only the configs change, `config._attn_implementation`, which is not saved with a model, and `lean_attention` of its
    attention layers, the modules with `is_causal`. That attribute is read at every call: setting it to "keep", "again" or
    "stock" chooses for one layer.

    Args:
        model: any module; what it holds of transformers' models is asked one by one.
        mode: "keep" or "again" (see the module), of all layers.
        quick: whether dropout masks may be equal in law only, at a quarter of the time.
        filter_fn: called with each attention layer and its name; False leaves its attention stock. Default: all.

    Returns:
        Name of a model within, or of an attention layer, → why its attention stays stock; the empty name is the model
        itself. Empty if all of them are lean.

    Raises:
        InputError: on another mode.
    """
    if mode not in get_args(AttentionMode):
        raise InputError(f"mode={mode!r} must be {' or '.join(get_args(AttentionMode))}")
    model = unwrapped(model)
    lean, reasons = attention_ahead(model)
    for part in lean.values():
        stock = cast(Stock, _stock_of(part))
        part.config._attn_implementation_internal = _Way(stock, mode, quick).name
    configs = {id(part.config) for part in lean.values()}
    for name, module in model.named_modules():
        if id(getattr(module, "config", None)) in configs and is_attention(module):
            left_out = filter_fn is not None and not filter_fn(module, name)
            module.__dict__[_MODE] = "stock" if left_out else mode
            reasons |= {name: "left out by the filter"} if left_out else {}
    return reasons


def attention_ahead(model: nn.Module) -> tuple[dict[str, PreTrainedModel], dict[str, str]]:
    """What `set_lean_attention` would do without a filter; nothing is changed.

    Returns:
        Models within whose attention can be lean, by name, and the name of all others, or of an attention layer → why it
        stays stock.
    """
    model = unwrapped(model)
    lean, reasons, known = {}, {}, set()
    for name, part in _models(model):
        known.add(id(part.config))
        reason = _reason(part, _stock_of(part))
        if reason is None:
            lean[name] = part
        else:
            reasons[name] = reason
    for name, module in model.named_modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation") and id(config) not in known:
            reasons[name] = f"the config of this {type(module).__name__} belongs to no model of transformers"
    return lean, reasons


def restore_attention(model: nn.Module) -> list[str]:
    """Undo `set_lean_attention`.

    Returns:
        Names of the models within that are stock again.
    """
    names = []
    for module in unwrapped(model).modules():
        module.__dict__.pop(_MODE, None)
    for name, part in _models(unwrapped(model)):
        way = _WAYS.get(part.config._attn_implementation)
        if way is not None:
            part.config._attn_implementation_internal = way.stock
            names.append(name)
    return names


def is_attention(module: nn.Module) -> bool:
    """Whether a module is an attention layer by what `AttentionInterface` reads of one."""
    return hasattr(module, "is_causal") and not isinstance(module, PreTrainedModel)


def _stock_of(model: PreTrainedModel) -> str | None:
    """The implementation of a model without lean attention."""
    found: str | None = model.config._attn_implementation
    way = _WAYS.get(str(found))
    return found if way is None else way.stock


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
