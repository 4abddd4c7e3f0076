"""Gradients of a lean module or model beside those of the stock one, and what either keeps for its backward pass."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wtacrs.integration.measure.saved_storages import SavedStorages, storages_of, unpacked
from wtacrs.validation.properties.saved_for_backward import note_contexts

SEED = 5


def gradients_of(run: Callable[[], Tensor], tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """The output `y` and the gradients of a scalar of it, under one seed, and torch's random state afterwards."""
    for tensor in tensors.values():
        tensor.grad = None
    torch.manual_seed(SEED)
    y = run()
    state = torch.random.get_rng_state()
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    (y * weights).sum().backward()
    found = {"y": y.detach().clone()}
    found |= {name: tensor.grad.clone() for name, tensor in tensors.items() if tensor.grad is not None}
    return found, state


def module_gradients(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Output and gradients of a module, those of its input among them."""
    x = x.detach().clone().requires_grad_()
    return gradients_of(lambda: module(x), {"x": x, **dict(module.named_parameters())})[0]


def model_gradients(model: nn.Module, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Loss and gradients of a model, and torch's random state after the forward pass."""
    return gradients_of(lambda: model(**batch).loss, dict(model.named_parameters()))


def deviation(found: dict[str, Tensor], known: dict[str, Tensor]) -> float:
    """The largest ‖found − known‖ / ‖known‖ of all tensors, where tiny norms count as 1e-4 of the largest."""
    assert found.keys() == known.keys()
    largest = max(tensor.double().norm().item() for tensor in known.values())
    return max(
        (found[name].double() - tensor.double()).norm().item() / max(tensor.double().norm().item(), 1e-4 * largest)
        for name, tensor in known.items()
    )


class Kept:
    """What a forward pass keeps for its backward pass, every storage once, by what was alive when it had ended.

    Attributes:
        total: bytes, without parameters and batch.
        by_owners: types of modules that saved a storage → bytes.
        twice: owners of storages that hold what another one holds too.
    """

    def __init__(self, model: nn.Module, forward: Callable[[], Tensor], apart: list[Tensor]) -> None:
        running: list[nn.Module] = []
        saved: SavedStorages[Any] = SavedStorages(lambda _: type(running[-1]).__name__ if running else "")
        handles = []
        for module in model.modules():
            handles.append(module.register_forward_pre_hook(lambda m, _: running.append(m)))
            handles.append(module.register_forward_hook(lambda *_: running.pop() and None, always_call=True))
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, unpacked):
            loss = forward()
        for handle in handles:
            handle.remove()
        note_contexts(loss.grad_fn, saved.note)
        gc.collect()
        known = {s for t in (*model.parameters(), *model.buffers(), *apart) for s in storages_of(t)}
        self.by_owners: dict[tuple[str, ...], int] = {}
        contents: dict[bytes, tuple[str, ...]] = {}
        self.twice: list[tuple[str, ...]] = []
        for reference, found in saved.alive(known).items():
            owners = tuple(sorted(found.keepers))
            self.by_owners[owners] = self.by_owners.get(owners, 0) + found.bytes
            storage = torch.UntypedStorage._new_with_weak_ptr(reference.cdata)
            content = torch.empty(0, dtype=torch.uint8).set_(storage).numpy().tobytes()
            if content in contents and found.bytes >= 256:
                self.twice.append((*contents[content], *owners))
            contents[content] = owners
        self.total = sum(self.by_owners.values())
