"""Classes that torch puts in front of a module's own one at run time, and how the one behind them is exchanged.

`torch.distributed.fsdp.fully_shard` and `replicate` derive `FSDPLinear` and `DDPLinear` from a marker and `Linear`;
`torch.nn.utils.parametrize.register_parametrization` derives `ParametrizedLinear` from `Linear`, a class of its own for
every module, which holds the properties that compute its tensors. Either may lie in front of the other.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize

_MARKERS = "torch.distributed."
"""Where the first bases of sharded and replicated modules are defined; importing them takes long."""

_classes: dict[tuple[type, ...], type] = {}
"""Bases → the class that torch gives to all sharded modules of one class."""


def own_class(module: nn.Module) -> type[nn.Module]:
    """The class of a module before torch put classes in front."""
    kind: type | None = type(module)
    while kind is not None:
        found, kind = kind, _behind(kind)
    return found


def set_class(module: nn.Module, kind: type[nn.Module]) -> None:
    """Exchange the own class of a module in place: it stays sharded and parametrized."""
    module.__class__ = _in_front_of(kind, type(module))


def is_parametrized(module: nn.Module) -> bool:
    """Whether a parametrization computes one of the module's tensors, at every access."""
    return "parametrizations" in module._modules and parametrize.is_parametrized(module)


def _in_front_of(kind: type[nn.Module], before: type[nn.Module]) -> type[nn.Module]:
    """The class to `kind` that `before` is to its own class."""
    behind = _behind(before)
    if behind is None:
        return kind
    inner = _in_front_of(kind, behind)
    bases = tuple(inner if base is behind else base for base in before.__bases__)
    shared = _behind(behind) is None and not _makes_properties(before)
    if shared:
        _classes[before.__bases__] = before
        if bases in _classes:
            return _classes[bases]
    namespace = {key: value for key, value in vars(before).items() if key not in ("__dict__", "__weakref__")}
    made = type(before.__name__.removesuffix(behind.__name__) + inner.__name__, bases, namespace)
    if shared:
        _classes[bases] = made
    return made


def _behind(kind: type) -> type | None:
    """The class that torch put this one in front of; None for a class that somebody wrote."""
    if _makes_properties(kind):
        return kind.__bases__[0]
    bases = kind.__bases__
    marked = len(bases) == 2 and bases[0].__module__.startswith(_MARKERS) and issubclass(bases[1], nn.Module)
    return bases[1] if marked else None


def _makes_properties(kind: type) -> bool:
    """Whether `register_parametrization` made a class: it alone refuses to be pickled in that module's name."""
    return getattr(vars(kind).get("__getstate__"), "__module__", None) == parametrize.__name__
