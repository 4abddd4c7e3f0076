"""Which layers of a model `approximate_` makes estimate their dW, which are left exact, and for what reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy as has_no_shape

from wtacrs.integration.layers.dynamic_classes import own_class
from wtacrs.integration.layers.estimated_weight_grad import MIN_ELEMENTS, EstimatedWeightGrad
from wtacrs.integration.layers.lean.classes import LeanModule
from wtacrs.integration.layers.least_elements import checked_min_elements, checked_min_rows, rows_of
from wtacrs.integration.layers.linear_layers import FilterFn, is_linear_layer, layer_input
from wtacrs.integration.layers.verdicts import Gradient, verdict_of
from wtacrs.integration.parallel.wrappers import unwrapped
from wtacrs.validation.arguments import check_batch, check_callable
from wtacrs.validation.patterns import pattern_of


class Largest(NamedTuple):
    """The largest input of a layer."""

    numbers: int
    rows: int


@dataclass(frozen=True)
class Coverage:
    """Modules of one kind: those whose names differ in numbers alone, and of which the same is true.

    Attributes:
        pattern: their name, `*` for a number; it fits `--layers`, `fitting_layers` and the patterns of `approximate_`.
        modules: how many there are.
        kind: their class, as it is unless converted.
        shape: of the weight; empty for modules with several parameters and no weight.
        parameters: numbers in all of them, biases included; a tensor that several modules hold counts for the first.
        gradient: of the weight, after `approximate_`; "none" for frozen ones.
        reason: why it is not estimated, or what is to be known of it if it is.
    """

    pattern: str
    modules: int
    kind: str
    shape: tuple[int, ...]
    parameters: int
    gradient: Gradient
    reason: str


def coverage(
    model: nn.Module,
    batch: Mapping[str, Tensor] | None = None,
    *,
    filter_fn: FilterFn | None = None,
    min_elements: int = MIN_ELEMENTS,
    min_rows: int = 0,
) -> list[Coverage]:
    """What `approximate_` would do with every module that has parameters of its own, or has done.

    The model is looked at, and not changed. What only shows when it runs, a layer that is never called or that gets few
    numbers, is told if there is a batch.

    Args:
        model: any module, converted or not.
        batch: keyword arguments for a forward pass without gradients; None for none.
        filter_fn: as in `approximate_`.
        min_elements: as in `approximate_`.
        min_rows: as in `approximate_`.

    Returns:
        Groups in the order of `model.named_modules()`.

    Raises:
        InputError: if an argument is not of the type that is said here.
    """
    min_elements, min_rows = checked_min_elements(min_elements), checked_min_rows(min_rows)
    check_callable(filter_fn, "filter_fn", takes="a layer and its name")
    if batch is not None:
        check_batch(batch, "batch")
    model = unwrapped(model)
    owners = _by_weight(model)
    calls = None if batch is None else _largest_inputs(model, batch)
    groups: dict[tuple[Any, ...], list[nn.Module]] = {}
    for name, module in model.named_modules():
        if not any(True for _ in module.parameters(recurse=False)):
            continue
        verdict = verdict_of(model, name, module, filter_fn)
        gradient, reason = verdict.gradient, verdict.reason
        if gradient == "estimated" and calls is not None:
            gradient, reason = _as_called(calls.get(name), min_elements, min_rows, reason)
        if gradient == "estimated" and not reason:
            reason = _tied(owners, name, module)
        key = (pattern_of(name), _stock_name(module), _shape(module), gradient, reason)
        groups.setdefault(key, []).append(module)
    seen: set[int] = set()
    return [
        Coverage(pattern, len(found), kind, shape, _numbers(found, seen), gradient, reason)
        for (pattern, kind, shape, gradient, reason), found in groups.items()
    ]


def estimated_share(found: Iterable[Coverage]) -> float:
    """Share of the trained numbers that modules hold whose dW is estimated, biases among them."""
    sizes: Counter[Gradient] = Counter()
    for entry in found:
        sizes[entry.gradient] += entry.parameters
    trained = sizes["estimated"] + sizes["exact"]
    return sizes["estimated"] / trained if trained else 0.0


def _as_called(largest: Largest | None, min_elements: int, min_rows: int, reason: str) -> tuple[Gradient, str]:
    if largest is None:
        return "exact", "not called in this batch"
    if largest.numbers < min_elements:
        return "exact", f"at most {largest.numbers} numbers come in, fewer than min_elements={min_elements}"
    if largest.rows < min_rows:
        return "exact", f"at most {largest.rows} rows come in, fewer than min_rows={min_rows}"
    return "estimated", reason


def _by_weight(model: nn.Module) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is not None:
            found.setdefault(id(weight), []).append(name)
    return found


def _tied(owners: Mapping[int, list[str]], name: str, module: nn.Module) -> str:
    others = [other for other in owners.get(id(module._parameters.get("weight")), ()) if other != name]
    return f"tied to {others[0]}, whose part of dW is exact" if others else ""


def _largest_inputs(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Largest]:
    """The most numbers and rows that came in at once, by linear layer that was called."""
    found: dict[str, Largest] = {}

    def note(name: str, x: Tensor) -> None:
        found[name] = max(found.get(name, Largest(0, 0)), Largest(x.numel(), rows_of(x)))

    handles = [
        module.register_forward_pre_hook(
            lambda layer, args, kwargs, name=name: note(name, layer_input(layer, args, kwargs)), with_kwargs=True
        )
        for name, module in model.named_modules()
        if is_linear_layer(module)
    ]
    mode = model.training
    try:
        with torch.no_grad():
            model.eval()(**batch)
    finally:
        model.train(mode)
        for handle in handles:
            handle.remove()
    return found


def _stock_name(module: nn.Module) -> str:
    kind = own_class(module)
    return (kind.stock if issubclass(kind, (EstimatedWeightGrad, LeanModule)) else kind).__name__


def _shape(module: nn.Module) -> tuple[int, ...]:
    weight = module._parameters.get("weight")
    return () if weight is None or has_no_shape(weight) else tuple(weight.shape)


def _numbers(modules: Iterable[nn.Module], seen: set[int]) -> int:
    total = 0
    for parameter in (p for module in modules for p in module.parameters(recurse=False)):
        known = id(parameter) in seen or has_no_shape(parameter)
        total += 0 if known else parameter.numel()
        seen.add(id(parameter))
    return total
