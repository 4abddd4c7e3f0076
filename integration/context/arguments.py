"""The arguments that a model's `forward` is called with, by name."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

EXAMPLE_IDS = "example_ids"
"""An argument that the hook takes away before the model sees it: positions of the examples in their data set."""


class ForwardArguments:
    """Names the arguments of a model's `forward`, and takes `example_ids` away from a model that does not know them.

    Args:
        model: whose `forward` is called.
    """

    def __init__(self, model: nn.Module) -> None:
        self._names = _positional(model)

    def by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """All arguments by name; positional ones beyond the known names are left out."""
        return dict(zip(self._names, args, strict=False)) | kwargs

    def known(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments that the model is to see; a model that has an `example_ids` of its own keeps it."""
        taken = {EXAMPLE_IDS} - set(self._names)
        return {name: value for name, value in kwargs.items() if name not in taken}


def _positional(model: nn.Module) -> list[str]:
    """Names of the positional arguments of `forward`; a wrapper of peft that takes any passes them on."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters
    names = [name for name, parameter in parameters.items() if parameter.kind in kinds]
    wrapped = getattr(model, "get_base_model", None)
    return names if names or wrapped is None else _positional(wrapped())
