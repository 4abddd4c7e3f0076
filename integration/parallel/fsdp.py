"""One model cut into pieces over the processes by `fully_shard` (FSDP2), and whole again where it is written.

What is written is what one process writes. `torch.distributed.checkpoint.state_dict` gathers pieces too, but not so: its
`get_model_state_dict` copies a tied weight once for every name, `set_model_state_dict` takes the model's own values for
names that are missing, without a word, and `get_optimizer_state_dict` fills the empty state of an optimizer that has not
made a step, by names where one process has numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(model: nn.Module) -> None:
    """Cut a model that is alike in all processes: every block of its lists of blocks, then the rest."""
    for block in _blocks(model):
        fully_shard(block)
    fully_shard(model)
    if hasattr(model, "generate"):
        register_fsdp_forward_method(model, "generate")


def is_sharded(model: nn.Module) -> bool:
    """Whether no process has all of the model."""
    return isinstance(model, FSDPModule)


def set_gradient_sync(model: nn.Module, enabled: bool) -> None:
    """Whether the next backward pass reduces gradients over the processes; else they stay where they were computed.

    Nothing is done to a model that is not sharded.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(enabled)


def full_state_dict(state: Any) -> Any:
    """Nested dicts and lists with every tensor whole, on the CPU if it was in pieces; all processes must ask."""
    return _full(state, {})


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with every tensor whole; what is tied under several names stays tied."""
    return full_state_dict(model.state_dict(keep_vars=True))


def load_full_weights(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the state dict of the model in one process, whether it is in pieces here or not.

    Raises:
        RuntimeError: if names or sizes differ, as `nn.Module.load_state_dict`.
    """
    own = model.state_dict()
    fit = {name: _placed(value, own.get(name)) for name, value in state.items()}
    model.load_state_dict(fit)


def load_full_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the state dict of an optimizer in one process, whether its parameters are in pieces here or not."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    placed = {
        index: {name: _placed(value, parameters[index]) for name, value in entry.items()}
        for index, entry in state["state"].items()
    }
    optimizer.load_state_dict(state | {"state": placed})


def _full(state: Any, known: dict[int, Tensor]) -> Any:
    if isinstance(state, DTensor):
        if id(state) not in known:
            known[id(state)] = state.full_tensor().detach().cpu()
        return known[id(state)]
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, Mapping):
        return {key: _full(value, known) for key, value in state.items()}
    if isinstance(state, list):
        return [_full(value, known) for value in state]
    return state


def _placed(value: Any, like: Any) -> Any:
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    # every process has read all of it, and takes its piece
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost module lists."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from (block for block in child if not isinstance(block, nn.ModuleList))
        else:
            yield from _blocks(child)
