"""Modules that hold a model for training over several devices, and what is inside."""

from __future__ import annotations

import sys

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from wtacrs.estimators.core.errors import InputError
from wtacrs.validation.arguments import shown


def unwrapped(model: nn.Module, argument: str = "model") -> nn.Module:
    """The model inside `DataParallel`, `DistributedDataParallel` and the older `FullyShardedDataParallel`; else itself.

    Its own forward hooks see the arguments that it takes, by its names for them. The wrapper's do not.

    Args:
        model: wrapped or not.
        argument: what it was given as, for the message.

    Raises:
        InputError: if it is no `nn.Module`.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"{argument}={shown(model)} must be a torch.nn.Module")
    fsdp = sys.modules.get("torch.distributed.fsdp")  # importing it takes long, and no model has it then
    wrappers: tuple[type[nn.Module], ...] = (DataParallel, DistributedDataParallel)
    if fsdp is not None:
        wrappers = (*wrappers, fsdp.FullyShardedDataParallel)
    while isinstance(model, wrappers):
        inside = model.module
        assert isinstance(inside, nn.Module)
        model = inside
    return model


def replicated(model: nn.Module) -> int:
    """Over how many devices `DataParallel` copies a model in every forward pass; 0 without it."""
    return len(model.device_ids) if isinstance(model, DataParallel) else 0
