"""`Conversion`: what `approximate_` has converted, what it has not, and why; and what it warns of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import is_lazy as has_no_shape

from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.layers.linear_layers import FilterFn, is_linear_layer
from wtacrs.integration.layers.verdicts import (
    Verdict,
    bare_matrices,
    bare_verdict,
    is_lazy,
    layer_verdict,
    weights_of,
)
from wtacrs.validation.patterns import first_few, pattern_of


class Conversion(list[str]):
    """Names of the converted layers, in the order of `model.named_modules()`, and the reasons of all that stays exact.

    Attributes:
        exact: name of a layer, or of a matrix that no linear layer holds, → why its dW is not estimated. A converted
            layer whose weight is frozen is among them, since it keeps nothing either way; look-ups, norms and vectors,
            which have no product of matrices, are not.
        warning: one line, where the conversion saves nothing or misses most of the linear work; else None.
    """

    def __init__(
        self, converted: Iterable[str] = (), exact: Mapping[str, str] | None = None, warning: str | None = None
    ) -> None:
        super().__init__(converted)
        self.exact = dict(exact or {})
        self.warning = warning

    @property
    def estimated(self) -> list[str]:
        """The converted layers whose weight trains: those whose dW is estimated."""
        return [name for name in self if name not in self.exact]


@dataclass(frozen=True)
class Part:
    """A linear layer, or a bare matrix, of a model.

    Attributes:
        name: in the model.
        verdict: what becomes of its dW.
        tensors: identity → numbers that train.
        lazy: whether it has no size yet.
    """

    name: str
    verdict: Verdict
    tensors: Mapping[int, int]
    lazy: bool


def parts_of(
    model: nn.Module, filter_fn: FilterFn | None = None, stays: Callable[[str], bool] = lambda _: False
) -> list[Part]:
    """Every linear layer and every bare matrix of a model, and what a conversion makes of it.

    Args:
        model: converted or not.
        filter_fn: as in `approximate_`.
        stays: whether the user's patterns leave a name out.
    """
    return list(_parts(model, filter_fn, stays))


def warning_of(parts: Iterable[Part], converted: int) -> str | None:
    """One line where a conversion saves nothing, or leaves most of the linear work exact though nobody asked; else None.

    Counted are the numbers that train of weights and bare matrices. What the user has left out, what is frozen and B of
    adapters count for neither side.
    """
    estimated: dict[int, int] = {}
    unasked: dict[int, int] = {}
    reasons: dict[str, str] = {}
    lazy = []
    for part in parts:
        if part.verdict.gradient == "estimated":
            estimated.update(part.tensors)
        elif part.verdict.gradient == "exact" and not part.verdict.chosen:
            unasked.update(part.tensors)
            reasons[part.name] = part.verdict.reason
            lazy += [part.name] if part.lazy else []
    if converted and not estimated:
        if converted == 1:
            return "1 layer converted, it does not train: nothing is saved"
        return f"{converted} layers converted, none of them trains: nothing is saved"
    if lazy:
        return f"lazy layers stay exact: {first_few(lazy)}; run a batch through the model, then convert it"
    stays, saved = sum(unasked.values()), sum(estimated.values())
    if stays <= saved:
        return None
    by_pattern = {pattern_of(name): reason for name, reason in reversed(reasons.items())}
    names = list(reversed(by_pattern))
    which = f"{names[0]}: {by_pattern[names[0]]}"
    which = which if len(names) == 1 else f"{first_few(names)}; {which}"
    return f"most linear work stays exact, {stays:,} of {stays + saved:,} trained numbers: {which}"


def reasons_of(parts: Iterable[Part]) -> dict[str, str]:
    """Name → reason of all that is not estimated."""
    return {part.name: part.verdict.reason for part in parts if part.verdict.gradient != "estimated"}


def _parts(model: nn.Module, filter_fn: FilterFn | None, stays: Callable[[str], bool]) -> Iterator[Part]:
    for name, module in model.named_modules():
        if is_linear_layer(module):
            weights = weights_of(module)
            if weights:  # else it wraps the layer that holds them
                verdict = _as_it_is(layer_verdict(model, name, module, filter_fn), module, stays(name))
                yield Part(name, verdict, _trained_numbers(weights), is_lazy(module))
        for full, parameter, holder in bare_matrices(model, name, module):
            verdict = bare_verdict(full, holder, parameter)
            verdict = _left_out(verdict) if stays(full) else verdict
            yield Part(full, verdict, _trained_numbers([parameter]), is_lazy(module))


def _as_it_is(verdict: Verdict, layer: nn.Module, stays: bool) -> Verdict:
    if not isinstance(layer, EstimatedWeightGrad):
        return _left_out(verdict) if stays else verdict
    # converted before, and left as it is by this filter
    return Verdict("estimated", "") if verdict.chosen else verdict


def _trained_numbers(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Identity → how many numbers, 0 where there is no shape yet."""
    return {id(t): 0 if has_no_shape(t) else t.numel() for t in tensors if t.requires_grad}


def _left_out(verdict: Verdict) -> Verdict:
    if verdict.gradient == "none":
        return verdict
    return Verdict("exact", 'left out: "exact" by its pattern, or no pattern fits', chosen=True)
