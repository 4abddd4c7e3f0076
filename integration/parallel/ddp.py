"""One copy of a model per process, kept alike by `DistributedDataParallel`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

_IGNORED = "_ddp_params_and_buffers_to_ignore"


def replicated(model: nn.Module, loss_of: Callable[[nn.Module], Tensor]) -> DistributedDataParallel:
    """The model wrapped, with the weights of the first process; gradients become means over the processes.

    Parameters that the loss does not reach are found by a backward pass, and keep no gradient, as in one process. A
    second pass lets the wrapper order its buckets: they are then the same in a run and in one that is resumed, and so is
    the order in which gradients are added. Random numbers and gradients are left as they were.

    Args:
        model: on its device, in the mode and with the layers that it will be trained with.
        loss_of: a loss of the model or of its wrapper, on examples that are the same in every process.
    """
    devices = [torch.cuda.current_device()] if next(model.parameters()).device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        loss_of(model).backward()
        unused = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        model.zero_grad()
        # DDP asks for the parameters of the outermost module by "" + "." + name
        setattr(model, _IGNORED, unused + [f".{name}" for name in unused])
        try:
            wrapper = DistributedDataParallel(model)
        finally:
            delattr(model, _IGNORED)
        loss_of(wrapper).backward()
        model.zero_grad()
    return wrapper
