"""Hooks around the calls of modules: what their arguments are named, and that every begin has its end."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor, nn

from wtacrs.integration.context.masks import MASK_ARGUMENTS

EXAMPLE_IDS = "example_ids"
"""An argument that the hook takes away before the model sees it: positions of the examples in their data set."""


class Listener(Protocol):
    """What is told of calls."""

    def begins(self, call: ModuleCalls, module: nn.Module, arguments: dict[str, Any]) -> None:
        """A module is called, with these arguments by name."""

    def ends(self, call: ModuleCalls, output: Any) -> None:
        """The call is over, and has returned None if it failed."""


class ModuleCalls:
    """The hooks on one module.

    Args:
        module: whose `forward` is called.
        listener: is told of the calls.
        outermost: whether this is the model itself, whose calls begin a forward pass.
    """

    def __init__(self, module: nn.Module, listener: Listener, *, outermost: bool) -> None:
        self.listener, self.outermost = listener, outermost
        self._names = _positional(module)
        self._mask_places = [self._names.index(name) for name in MASK_ARGUMENTS if name in self._names]
        self._handles = [
            module.register_forward_pre_hook(self._enter, with_kwargs=True),
            module.register_forward_hook(self._leave, always_call=True),
        ]

    @staticmethod
    def on(module: nn.Module) -> list[ModuleCalls]:
        """All that are hooked on this very module."""
        owners = (getattr(hook, "__self__", None) for hook in module._forward_pre_hooks.values())
        return [owner for owner in owners if isinstance(owner, ModuleCalls)]

    @property
    def hooked(self) -> bool:
        """Whether the hooks are on a module: not after `remove`, and not in a copy of a layer without its model."""
        return any(handle.id in (handle.hooks_dict_ref() or ()) for handle in self._handles)

    def takes(self, names: Iterable[str]) -> bool:
        """Whether `forward` has an argument of one of these names."""
        return not set(names).isdisjoint(self._names)

    def __getstate__(self) -> dict[str, Any]:
        """Without handles of a model that is gone, which could not be copied."""
        return {**self.__dict__, "_handles": self._handles if self.hooked else []}

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _enter(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not self.outermost and not self._has_mask(args, kwargs):
            return None  # as most blocks, which get theirs with more axes
        by_name = dict(zip(self._names, args, strict=False)) | kwargs
        self.listener.begins(self, module, by_name)
        if EXAMPLE_IDS not in kwargs or EXAMPLE_IDS in self._names:
            return None  # a model that has an argument of this name keeps it
        return args, {name: value for name, value in kwargs.items() if name != EXAMPLE_IDS}

    def _has_mask(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        found = [kwargs.get(name) for name in MASK_ARGUMENTS]
        found += [args[place] for place in self._mask_places if place < len(args)]
        return any(isinstance(mask, Tensor) and mask.ndim == 2 for mask in found)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.listener.ends(self, output)


def takes_masks(module: nn.Module) -> bool:
    """Whether `forward` has an argument for a mask."""
    return not set(MASK_ARGUMENTS).isdisjoint(_positional(module))


def _positional(module: nn.Module) -> list[str]:
    """Names of the arguments of `forward` that may be positional; a wrapper of peft that takes any passes them on."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(module.forward).parameters
    except (TypeError, ValueError):  # written in C, or scripted
        return []
    names = [name for name, parameter in parameters.items() if parameter.kind in kinds]
    wrapped = getattr(module, "get_base_model", None)
    return names if names or wrapped is None else _positional(wrapped())
