"""What converted layers keep of their inputs, found by compressing them once more, beside the run and unseen by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from wtacrs.integration.layers.compression import autocast_dtype, compressed
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad

_SEED = 0


@dataclass
class LayerBytes:
    """Bytes of one layer in one forward pass, all its calls together; `exact` is what the stock layer would keep.

    A compressed copy that several layers share counts for the first.

    An input that several layers read, as query, key and value do, is kept once by exact layers: it counts for each of
    them in `exact`, and for the first alone in `exact_alone`, whose sum over layers is what exact layers keep together.
    """

    stored: int = 0
    exact: int = 0
    exact_alone: int = 0


def stored_bytes(layer: EstimatedWeightGrad, x: Tensor) -> tuple[int, int]:
    """Bytes that a layer keeps of an input for the backward pass, and that the stock layer would keep.

    Random numbers come from a generator of its own: the run's are left as they are. What is counted depends on the
    shape of `x` alone (property 6 of `wtacrs.estimators.core.base`).

    Args:
        layer: a converted layer, in the mode and under the autocast that it will run in.
        x: its input `[..., d]`.
    """
    exact = x.numel() * autocast_dtype(x).itemsize
    if not layer.weight.requires_grad:
        return 0, 0
    if not layer.samples(x):
        return exact, exact
    generator = torch.Generator(x.device).manual_seed(_SEED)
    saved = compressed(layer.estimator, x, scores=layer.scores_of(x.detach()), generator=generator)
    storages = [t.untyped_storage() for t in tensors_in(saved)]
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values()), exact


def tensors_in(saved: Any) -> Iterator[Tensor]:
    """All tensors of nested tuples, as `compress` returns them."""
    for part in saved:
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, tuple):
            yield from tensors_in(part)


class LayerBytesProbe:
    """Measures every converted layer of a model during its next forward pass, and then leaves.

    Args:
        model: whose `forward` it waits for.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers: dict[str, LayerBytes] = {}
        self.done = False
        self._inputs: list[StorageWeakRef] = []
        self._handles = [
            layer.register_forward_pre_hook(self._hook(name))
            for name, layer in model.named_modules()
            if isinstance(layer, EstimatedWeightGrad)
        ]
        self._handles.append(model.register_forward_hook(self._leave, always_call=True))

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Any:
        entry = self.layers.setdefault(name, LayerBytes())

        def measure(layer: EstimatedWeightGrad, args: tuple[Any, ...]) -> None:
            if not torch.is_grad_enabled():
                return
            stored, exact = stored_bytes(layer, args[0])
            entry.stored += 0 if layer.samples(args[0]) and layer.finds_shared(args[0]) else stored
            entry.exact += exact
            if not self._kept_already(args[0]):
                entry.exact_alone += exact

        return measure

    def _kept_already(self, x: Tensor) -> bool:
        """Whether an exact layer would find this very storage kept; a cast under autocast makes a new one."""
        if autocast_dtype(x) != x.dtype:
            return False
        found = StorageWeakRef(x.untyped_storage())  # weak: holding x would cost what is being saved
        self._inputs = [kept for kept in self._inputs if not kept.expired()]
        if found in self._inputs:
            return True
        self._inputs.append(found)
        return False

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.done = True
        self.remove()
