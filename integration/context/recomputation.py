"""Which forward pass a layer belongs to that activation checkpointing runs again in a backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from wtacrs.integration.context.forward_pass import ForwardPass


class Recomputation:
    """The forward pass that a backward pass is recomputing.

    Once a backward pass has gone through an output of a forward pass, and until it ends, layers that run belong to that
    forward pass. If it goes through outputs of several passes, nothing is known of the layers but a seed.
    """

    def __init__(self) -> None:
        self.current: ForwardPass | None = None

    def watch(self, ended: ForwardPass, output: Any) -> None:
        """Notice the backward pass that begins at any tensor of the output of a forward pass."""
        for tensor in tensors_with_gradient(output):
            tensor.register_hook(lambda _: self._begin(ended))

    def forget(self) -> None:
        """A new forward pass begins: nothing is recomputed."""
        self.current = None

    def _begin(self, ended: ForwardPass) -> None:
        if self.current is ended:
            return
        if self.current is None:
            self.current = ended
            torch.autograd.Variable._execution_engine.queue_callback(self._backward_ends)
        else:
            self.current = self.current.together_with(ended)

    def _backward_ends(self) -> None:
        if self.current is not None:
            self.current.forget_calls()
        self.current = None


def tensors_with_gradient(output: Any) -> Iterator[Tensor]:
    """The tensors of a model's output that a backward pass can start from."""
    if isinstance(output, Tensor):
        if output.requires_grad:
            yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from tensors_with_gradient(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from tensors_with_gradient(value)
    elif hasattr(output, "__dataclass_fields__"):
        yield from tensors_with_gradient([getattr(output, name) for name in output.__dataclass_fields__])
