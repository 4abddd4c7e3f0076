"""Which forward pass a layer belongs to that activation checkpointing runs again in a backward pass."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wtacrs.integration.context.draws import Draws
from wtacrs.integration.context.forward_pass import ForwardPass


class _Backward(NamedTuple):
    thread: int
    recomputes: ForwardPass


class Recomputation:
    """The forward passes that backward passes are recomputing.

    Once a backward pass has gone through an output of a forward pass, and until it ends, layers that run in it belong to
    that forward pass. If it goes through outputs of several passes, nothing is known of the layers. Backward passes are
    told apart by autograd's number for them, so that those of several threads do not meet.

    Args:
        draws: of the layers.
    """

    def __init__(self, draws: Draws) -> None:
        self._draws = draws
        self._backwards: dict[int, _Backward] = {}

    @property
    def current(self) -> ForwardPass | None:
        """The forward pass that the backward pass under way in this thread recomputes; None outside of any."""
        task = backward_under_way()
        if task is None:
            return None
        if task in self._backwards:
            return self._backwards[task].recomputes
        # reentrant checkpointing runs a backward pass within another, in the same thread
        # a list at once, to which no other thread adds meanwhile
        mine = [entry for entry in list(self._backwards.values()) if entry.thread == threading.get_ident()]
        return mine[-1].recomputes if mine else None

    def watch(self, ended: ForwardPass, output: Any) -> None:
        """Notice the backward pass that begins at any tensor of the output of a forward pass."""
        for tensor in tensors_with_gradient(output):
            tensor.register_hook(lambda _: self._begin(ended))

    def forget(self) -> None:
        """A new forward pass begins: what an interrupted backward pass of this thread has left is let go."""
        if self._backwards and backward_under_way() is None:
            mine = threading.get_ident()
            for task, entry in list(self._backwards.items()):
                if entry.thread == mine:
                    self._backwards.pop(task, None)

    def _begin(self, ended: ForwardPass) -> None:
        task = backward_under_way()
        if task is None:
            return
        known = self._backwards.get(task)
        if known is None:
            self._backwards[task] = _Backward(threading.get_ident(), ended)
            torch.autograd.Variable._execution_engine.queue_callback(lambda: self._end(task))
        elif known.recomputes is not ended and known.recomputes.known:
            self._backwards[task] = known._replace(recomputes=ForwardPass(self._draws, known=False))

    def _end(self, task: int) -> None:
        entry = self._backwards.pop(task, None)
        if entry is not None:
            entry.recomputes.forget_calls()


def backward_under_way() -> int | None:
    """Autograd's number for the backward pass that this thread runs."""
    task = torch._C._current_graph_task_id()
    return None if task == -1 else task


def tensors_with_gradient(output: Any) -> Iterator[Tensor]:
    """The tensors of a model's output that a backward pass starts from, or goes through on its way into the model."""
    if isinstance(output, Tensor):
        stands_for = getattr(
            type(output), "gradient_passes", None
        )  # of what is computed when its numbers are needed
        tensor = output if stands_for is None else stands_for(output)
        if tensor.grad_fn is not None:  # a leaf outlives the step, and with it every hook
            yield tensor
    elif isinstance(output, dict):
        for value in output.values():
            yield from tensors_with_gradient(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from tensors_with_gradient(value)
    elif hasattr(output, "__dataclass_fields__"):
        yield from tensors_with_gradient([getattr(output, name) for name in output.__dataclass_fields__])
