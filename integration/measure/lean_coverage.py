"""Which modules of a model `lean_` makes keep less, which stay stock, and for what reason."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from torch import nn

from wtacrs.integration.layers.dynamic_classes import own_class
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.layers.lean.classes import LeanModule
from wtacrs.integration.layers.lean.convert import LeanConversion, lean_ahead
from wtacrs.integration.layers.lean.head import LeanHead, heads_ahead
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.integration.parallel.wrappers import unwrapped
from wtacrs.validation.patterns import pattern_of

_ASKED = {"attention": "attention or attention-again", "output layer": "head or head-again"}


@dataclass(frozen=True)
class LeanCoverage:
    """Modules of one kind: those whose names differ in numbers alone, and of which the same is true.

    Attributes:
        pattern: their name, `*` for a number; empty for the model itself.
        modules: how many there are.
        kind: their class, as it is unless converted.
        lean: whether they keep less.
        what: what they were found to be, or why they stay stock.
    """

    pattern: str
    modules: int
    kind: str
    lean: bool
    what: str


def lean_coverage(model: nn.Module, options: LeanOptions | None = None) -> list[LeanCoverage]:
    """What `lean_` would do with every part of a model; the model is looked at, and not changed.

    Args:
        model: any module, converted or not.
        options: of `lean_`; None for its defaults.

    Returns:
        Modules without children in the order of `model.named_modules()`; then attention, one for every model of
        transformers within; then output layers.
    """
    model, options = unwrapped(model), options or LeanOptions()
    modules = dict(model.named_modules())
    ahead = lean_ahead(model, options)
    groups: dict[tuple[Any, ...], int] = {}
    for name in modules:
        if name in ahead.found or name in ahead.stays:
            lean = name in ahead.found
            what = ahead.found[name] if lean else ahead.stays[name]
            _count(groups, name, _stock_name(modules[name]), lean, what)
    for name, lean, what in [*_attention(model, options), *_heads(model, options, ahead)]:
        _count(groups, name, _stock_name(modules[name]), lean, what)
    return [LeanCoverage(pattern, count, *rest) for (pattern, *rest), count in groups.items()]


def _attention(model: nn.Module, options: LeanOptions) -> list[tuple[str, bool, str]]:
    if "transformers" not in sys.modules:  # then no model of its is within
        return []
    from wtacrs.integration.layers.lean.attention import attention_ahead  # needs transformers

    lean, reasons = attention_ahead(model)
    if options.attention is None:
        return [(name, False, _not_asked("attention")) for name in lean] + _stock("attention", reasons)
    kept = {"keep": "q, k, v and a bit per probability", "again": "what q, k, v are projected from"}
    found = [(name, True, f"attention: keeps {kept[options.attention]}") for name in lean]
    return found + _stock("attention", reasons)


def _heads(model: nn.Module, options: LeanOptions, ahead: LeanConversion) -> list[tuple[str, bool, str]]:
    heads, reasons = heads_ahead(model, undone=True)
    if options.head is None:
        unasked = [name for name, head in heads.items() if own_class(head) is not LeanHead]
        return [(name, False, _not_asked("output layer")) for name in unasked] + _stock("output layer", reasons)
    listed = [(name, True, "output layer, with its loss by pieces of rows") for name in heads if name not in ahead]
    return listed + _stock("output layer", reasons)


def _stock(part: str, reasons: dict[str, str]) -> list[tuple[str, bool, str]]:
    return [(name, False, f"{part}: {reason}") for name, reason in reasons.items()]


def _not_asked(part: str) -> str:
    return f"{part}: not asked for by {_ASKED[part]}"


def _count(groups: dict[tuple[Any, ...], int], name: str, kind: str, lean: bool, what: str) -> None:
    key = (pattern_of(name), kind, lean, what)
    groups[key] = groups.get(key, 0) + 1


def _stock_name(module: nn.Module) -> str:
    kind = own_class(module)
    if kind is LeanHead:
        return nn.Linear.__name__
    return (kind.stock if issubclass(kind, (EstimatedWeightGrad, LeanModule)) else kind).__name__
