"""Lean modules by a change of class: what they add to the class that they were of, and the way back."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wtacrs.integration.context.shared_inputs import can_share
from wtacrs.integration.layers.dynamic_classes import is_parametrized, own_class, set_class

_classes: dict[tuple[type, type], type] = {}
_TERMS = "lean_terms"


class LeanModule(nn.Module):
    """Mixin in front of a module's own class, which it stays an instance of, with no parameters and no state dict.

    The module's own forward is taken in eval mode, without gradients, in compiled code, for tensors of `torch.func` or of
    other libraries, and wherever a piece says so.

    Attributes:
        stock: the class that the module is of otherwise.
        lean_terms: what was found of the module when it was converted.
    """

    stock: ClassVar[type[nn.Module]]
    lean_terms: Any

    def is_lean(self, x: Any) -> bool:
        """Whether this input takes the lean path."""
        return (
            self.training
            and not is_parametrized(self)  # since the conversion
            and not torch.compiler.is_compiling()
            and torch.is_grad_enabled()
            and isinstance(x, Tensor)
            and can_share(x)
            and x.is_floating_point()
            and x.numel() > 0
            and x.layout is torch.strided
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the two classes, of which this one is made at run time."""
        reduced: Any = super().__reduce_ex__(protocol)
        if type(self) not in _classes.values():
            return reduced
        return _new, type(self).__bases__, *reduced[2:]


def _new(mixin: type[LeanModule], stock: type[nn.Module]) -> nn.Module:
    kind = lean_class(mixin, stock)
    return kind.__new__(kind)


def lean_class(mixin: type[LeanModule], stock: type[nn.Module]) -> type[LeanModule]:
    """The class of lean modules of a stock class, one for all of them."""
    if (mixin, stock) not in _classes:
        namespace = {"stock": stock, "__doc__": mixin.__doc__, "__module__": mixin.__module__}
        _classes[mixin, stock] = type(f"Lean{stock.__name__}", (mixin, stock), namespace)
    return _classes[mixin, stock]


def stock_class(module: nn.Module) -> type[nn.Module]:
    """The class of a module before torch, or `lean_`, put classes in front."""
    kind = own_class(module)
    return kind.stock if issubclass(kind, LeanModule) else kind


def make_lean(module: nn.Module, mixin: type[LeanModule], terms: Any = None) -> None:
    """Put a mixin in front of the class of a module."""
    set_class(module, lean_class(mixin, stock_class(module)))
    module.__dict__[_TERMS] = terms


def make_unlean(module: LeanModule) -> None:
    """Take it away again."""
    module.__dict__.pop(_TERMS, None)
    set_class(module, module.stock)
