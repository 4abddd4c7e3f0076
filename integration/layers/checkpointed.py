"""Activation checkpointing of chosen modules, by a change of class: what they compute is computed twice."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from wtacrs.integration.layers.dynamic_classes import own_class, set_class

_classes: dict[type[nn.Module], type[Checkpointed]] = {}


class Checkpointed(nn.Module):
    """Mixin in front of a module's own class, with no parameters and no state: its forward pass runs twice in training.

    Output and gradients are those of the stock module, dropout included: torch's random numbers are put back for the
    second run. Keys and values of earlier tokens, which are of no use in training, are neither read nor written.

    Attributes:
        stock: the class that the module is of otherwise.
    """

    stock: ClassVar[type[nn.Module]]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The stock forward; in training with gradients nothing of it is kept but its inputs."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(*args, **kwargs)
        arguments = [_without_cache(value) for value in args]
        named: dict[str, Any] = {
            name: False if name == "use_cache" else _without_cache(value) for name, value in kwargs.items()
        }
        return checkpoint(super().forward, *arguments, use_reentrant=False, **named)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the stock class, of which this one is made at run time."""
        reduced: Any = super().__reduce_ex__(protocol)
        if type(self) not in _classes.values():
            return reduced
        return _new, (self.stock,), *reduced[2:]


def set_checkpointed(modules: Iterable[nn.Module]) -> None:
    """Checkpoint these modules, in place; those that are already stay so."""
    for module in modules:
        if not isinstance(module, Checkpointed):
            set_class(module, _checkpointed_class(own_class(module)))


def restore_checkpointed(module: nn.Module) -> bool:
    """Make one module stock; whether it was checkpointed by `set_checkpointed`."""
    if not isinstance(module, Checkpointed):
        return False
    set_class(module, module.stock)
    return True


def unchecked_class(module: nn.Module) -> type[nn.Module]:
    """The class of a module before torch, or `set_checkpointed`, put classes in front."""
    kind = own_class(module)
    return kind.stock if issubclass(kind, Checkpointed) else kind


def _new(stock: type[nn.Module]) -> nn.Module:
    kind = _checkpointed_class(stock)
    return kind.__new__(kind)


def _checkpointed_class(stock: type[nn.Module]) -> type[Checkpointed]:
    if stock not in _classes:
        namespace = {"stock": stock, "__doc__": Checkpointed.__doc__, "__module__": Checkpointed.__module__}
        _classes[stock] = type(f"Checkpointed{stock.__name__}", (Checkpointed, stock), namespace)
    return _classes[stock]


def _without_cache(value: Any) -> Any:
    """None in place of a cache of transformers, which a second run would extend once more."""
    cache = getattr(sys.modules.get("transformers.cache_utils"), "Cache", None)
    return None if cache is not None and isinstance(value, cache) else value
