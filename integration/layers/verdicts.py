"""What becomes of a module's weight gradient when its model is converted, and why; `approximate_` and `coverage` ask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.parameter import is_lazy as has_no_shape
from torch.nn.utils.parametrize import ParametrizationList

from wtacrs.integration.context.peft_names import reads_rank
from wtacrs.integration.layers.dynamic_classes import is_parametrized
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.layers.lean.classes import stock_class
from wtacrs.integration.layers.lean.head import LeanHead
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.integration.layers.linear_layers import FilterFn, conv1d_class, is_linear_layer

Gradient = Literal["estimated", "exact", "none"]

_POSSESSIVE = {True: "'", False: "'s"}
_LOOK_UPS = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_CONVOLUTIONS = (nn.modules.conv._ConvNd,)


@dataclass(frozen=True)
class Verdict:
    """What becomes of one weight gradient.

    Attributes:
        gradient: "none" for a frozen weight.
        reason: why it is not estimated; empty if it is.
        chosen: whether the user has left it out.
    """

    gradient: Gradient
    reason: str
    chosen: bool = False


def converted_class(module: nn.Module) -> type[EstimatedWeightGrad] | None:
    """What `approximate_` makes of a module (of one converted already: the same again), or None.

    Subclasses of `nn.Linear` and `Conv1D` have a `forward` of their own to lose, and are left alone; so are layers of
    which `unfit` tells a reason.
    """
    kind = stock_class(module)
    if not is_linear_layer(module) or unfit(module) is not None:
        return None
    if kind in (nn.Linear, ApproxLinear):
        return ApproxLinear
    if issubclass(kind, EstimatedWeightGrad) and "stock" in vars(kind):
        return kind
    if kind is not conv1d_class():
        return None
    from wtacrs.integration.layers.conv1d import ApproxConv1D

    return ApproxConv1D


def unfit(layer: nn.Module) -> str | None:
    """Why the weight of a linear layer of whichever class cannot have an estimated gradient; None if it can."""
    if is_lazy(layer):
        return "lazy: its weight has no shape before the first forward pass"
    if is_parametrized(layer):
        return "parametrized: its weight is computed anew at every access"
    for weight in weights_of(layer):
        if not weight.is_floating_point():
            return f"its weight is {str(weight.dtype).removeprefix('torch.')}; real numbers can be estimated"
    return None


def is_lazy(layer: nn.Module) -> bool:
    """Whether a parameter of a layer waits for its shape."""
    return any(has_no_shape(parameter) for parameter in layer.parameters(recurse=False))


def weights_of(layer: nn.Module) -> list[Tensor]:
    """What a linear layer's weight is, or is computed from by `weight_norm`, `prune` or the like; none in a wrapper."""
    weight = layer._parameters.get("weight")
    if weight is not None:
        return [weight]
    own: list[Tensor] = [
        parameter
        for name, parameter in layer._parameters.items()
        if parameter is not None and name.startswith("weight")
    ]
    lists = layer._modules.get("parametrizations")
    made = lists._modules.get("weight") if isinstance(lists, nn.ModuleDict) else None
    found = own if made is None else [*own, *made.parameters()]
    if not found and isinstance(view := vars(layer).get("weight"), Tensor):
        return [view]  # of the flat parameter of the older FullyShardedDataParallel
    return found


def trains(layer: nn.Module) -> bool:
    """Whether a linear layer's weight gets a gradient."""
    return any(weight.requires_grad for weight in weights_of(layer))


def layer_verdict(model: nn.Module, name: str, layer: nn.Module, filter_fn: FilterFn | None) -> Verdict:
    """What becomes of a linear layer's weight."""
    if not trains(layer):
        if any(parameter.requires_grad for parameter in layer.parameters(recurse=False)):
            return Verdict("none", "the weight is frozen, a bias needs nothing of X")
        return Verdict("none", "frozen: nothing is kept for dW")
    if filter_fn is not None and not is_lazy(layer) and not filter_fn(layer, name):
        return Verdict("exact", "left out by the filter", chosen=True)
    reason = unfit(layer)
    if isinstance(layer, LeanHead) and layer.estimator is not None:
        return Verdict("estimated", "")
    if isinstance(layer, LeanHead):
        return Verdict("exact", "an output layer with its loss by pieces of rows, for row designs alone")
    if reason is None and converted_class(layer) is None:
        reason = _subclass(model, name, layer)
    if reason is not None:
        return Verdict("exact", reason)
    if "forward" in vars(layer):
        return Verdict("exact", "its forward is replaced on the instance, so approximate_ refuses the model")
    if filter_fn is None and reads_rank(name):
        return Verdict("exact", "B of an adapter: its input is r numbers wide", chosen=True)
    return Verdict("estimated", "")


def verdict_of(model: nn.Module, name: str, module: nn.Module, filter_fn: FilterFn | None) -> Verdict:
    """What becomes of a module with parameters of its own, linear layer or not."""
    if is_linear_layer(module):
        return layer_verdict(model, name, module, filter_fn)
    if not any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
        return Verdict("none", "frozen: nothing is kept for dW")
    return Verdict("exact", _other_kind(module))


def bare_matrices(model: nn.Module, name: str, module: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Parameters, beside the weight of a linear layer, which a product may be taken with: name, tensor and holder.

    What torch looks up, or scales by, is no factor of a product; nor is a vector.
    """
    holder = _holder(model, name, module)
    if isinstance(holder, (*_LOOK_UPS, *_NORMS)) or (
        is_linear_layer(holder) and isinstance(module, ParametrizationList)
    ):
        return
    layers_own = _own_of_linear(holder) if is_linear_layer(holder) else set()
    for own, parameter in module._parameters.items():
        if parameter is None or id(parameter) in layers_own:
            continue
        if has_no_shape(parameter) or sum(size > 1 for size in parameter.shape) >= 2:
            yield f"{name}.{own}" if name else own, parameter, holder


def _own_of_linear(layer: nn.Module) -> set[int]:
    """Identities of a linear layer's weight and bias, of which `layer_verdict` tells."""
    found = [*weights_of(layer), layer._parameters.get("bias")]
    return {id(tensor) for tensor in found if tensor is not None}


def bare_verdict(name: str, holder: nn.Module, parameter: nn.Parameter) -> Verdict:
    """What becomes of one of the `bare_matrices`; a convolution, or an adapter of a look-up, is told as what it is."""
    if not parameter.requires_grad:
        return Verdict("none", "frozen: nothing is kept for dW")
    adapted = holder._modules.get("base_layer")
    for known in (holder, adapted):
        if isinstance(known, (*_LOOK_UPS, *_CONVOLUTIONS)):
            return Verdict("exact", _other_kind(known), chosen=True)
    if reads_rank(name):
        return Verdict("exact", "B of an adapter: its input is r numbers wide", chosen=True)
    return Verdict("exact", f"a bare parameter of {_full_kind(holder)}: no linear layer is called with it")


def _full_kind(module: nn.Module) -> str:
    """The name of a module's class, with the package that defines it unless that is torch."""
    kind = type(module)
    package = kind.__module__.partition(".")[0]
    if package in ("torch", "__main__"):
        return kind.__name__
    return f"{package}{_POSSESSIVE[package.endswith('s')]} {kind.__name__}"


def _holder(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """The module whose forward pass a parameter is for: not a container of parameters, nor a parametrization."""
    while name and isinstance(module, (nn.ParameterDict, nn.ParameterList, ParametrizationList)):
        above = 2 if isinstance(module, ParametrizationList) else 1
        name = name.rsplit(".", above)[0] if name.count(".") >= above else ""
        module = model.get_submodule(name)
    return module


def _other_kind(module: nn.Module) -> str:
    if isinstance(module, _LOOK_UPS):
        return "a look-up: ids are kept, no X"
    if isinstance(module, _NORMS) or "norm" in type(module).__name__.lower():
        return "a norm: its dW is no product of matrices"
    if isinstance(module, _CONVOLUTIONS):
        return "a convolution"
    if isinstance(module, nn.MultiheadAttention):
        return "hands its weights to a function, no layer is called"
    if isinstance(module, ParametrizationList):
        return "what a parametrization computes a tensor from"
    return "no linear layer"


def _subclass(model: nn.Module, name: str, layer: nn.Module) -> str:
    parent = model.get_submodule(name.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention):
        return "never called: its attention takes the weight alone"
    base = "nn.Linear" if isinstance(layer, nn.Linear) else "Conv1D"
    return f"a subclass of {base}, whose own forward would be lost"
