"""Models that training over several devices has wrapped: what is inside, and the class that a module really has."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

_classes: dict[tuple[type, type], type] = {}
"""(marker, class) → the class that FSDP2 gives to modules of that class."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside `DistributedDataParallel` and the older `FullyShardedDataParallel`; any other one itself.

    Its own forward hooks see the arguments that it takes, by its names for them. The wrapper's do not.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")  # importing it takes long, and no model has it then
    wrappers = (
        (DistributedDataParallel,) if fsdp is None else (DistributedDataParallel, fsdp.FullyShardedDataParallel)
    )
    while isinstance(model, wrappers):
        model = model.module
    return model


def own_class(module: nn.Module) -> type[nn.Module]:
    """The class of a module before `torch.distributed.fsdp.fully_shard` put one of its own in front."""
    kind = type(module)
    return kind if _marker(kind) is None else kind.__bases__[1]


def set_class(module: nn.Module, kind: type[nn.Module]) -> None:
    """Change the class of a module in place. One that is sharded by `fully_shard` stays sharded."""
    before = type(module)
    marker = _marker(before)
    if marker is not None:
        _classes.setdefault((marker, before.__bases__[1]), before)
        namespace = {"__deepcopy__": before.__dict__["__deepcopy__"]} if "__deepcopy__" in before.__dict__ else {}
        name = before.__name__.removesuffix(before.__bases__[1].__name__) + kind.__name__
        kind = _classes.setdefault((marker, kind), type(name, (marker, kind), namespace))
    module.__class__ = kind


def _marker(kind: type) -> Any:
    """What `fully_shard` derives the classes of sharded modules from, if this is such a class."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    bases = kind.__bases__
    if fsdp is None or len(bases) != 2 or not issubclass(bases[0], fsdp.FSDPModule):
        return None
    return bases[0]
