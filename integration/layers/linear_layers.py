"""Which modules are linear layers, `nn.Linear` and the `Conv1D` of transformers, and how they are chosen by name.

transformers is not imported here: a model that holds a `Conv1D` has imported it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from wtacrs.validation.patterns import fitting

FilterFn = Callable[[Any, str], bool]
"""Called with a linear layer and its name; False leaves the layer out."""


def conv1d_class() -> type[nn.Module] | None:
    """The `Conv1D` of transformers, whose weight is `[d, m]`, or None as long as nothing has imported it."""
    return getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)


def is_linear_layer(module: nn.Module) -> bool:
    """Whether a module is an `nn.Linear` or a `Conv1D`, of whichever subclass."""
    conv1d = conv1d_class()
    return isinstance(module, nn.Linear) or (conv1d is not None and isinstance(module, conv1d))


def layer_input(layer: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """What a linear layer was called with, by position or by its `forward`'s name for it.

    >>> layer_input(nn.Linear(2, 1), (), {"input": "x"})
    'x'
    """
    if args:
        return args[0]
    first = next(iter(inspect.signature(layer.forward).parameters), None)
    return kwargs[first] if first is not None and first in kwargs else next(iter(kwargs.values()))


def linear_layer_names(model: nn.Module) -> list[str]:
    """Names of the linear layers, in the order of `model.named_modules()`."""
    return [name for name, module in model.named_modules() if is_linear_layer(module)]


def fitting_layers(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the linear layers that fit one of the patterns (`*`, `?`, `[]`).

    Raises:
        InputError: if a pattern fits none.
    """
    return fitting(linear_layer_names(model), patterns, what="linear layers")


def asked_once(filter_fn: FilterFn) -> FilterFn:
    """The filter, asked once for each name: one that counts, or draws, gives one answer."""
    known: dict[str, bool] = {}

    def answer(layer: Any, name: str) -> bool:
        if name not in known:
            known[name] = bool(filter_fn(layer, name))
        return known[name]

    return answer


def filter_of(model: nn.Module, patterns: Sequence[str] | None) -> FilterFn | None:
    """A `filter_fn` that accepts the linear layers that fit one of the patterns; None, for the default, without any.

    Raises:
        InputError: if a pattern fits none.
    """
    if patterns is None:
        return None
    chosen = frozenset(fitting_layers(model, patterns))
    return lambda _, name: name in chosen
