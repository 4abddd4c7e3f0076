"""Bytes, or seconds, at the moments of a step: when the forward and the backward pass enter a block and leave it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.context.recomputation import tensors_with_gradient
from wtacrs.integration.measure.memory import LiveBytes
from wtacrs.validation.benchmarks.timing import wait_for

Kind = Literal["in", "out", "back", "through", "end"]


class Meter(Protocol):
    """What is read at every moment."""

    def read(self) -> tuple[float, float]:
        """What there is now, and the most since it was last read."""


class LiveMeter:
    """Bytes alive, as `LiveBytes` counts them."""

    def __init__(self, live: LiveBytes) -> None:
        self._live = live

    def read(self) -> tuple[float, float]:
        """Bytes now, and the most since the last reading."""
        most, self._live.peak = self._live.peak, self._live.now
        return self._live.now, max(most, self._live.now)


class DeviceMeter:
    """Bytes that CUDA's allocator has given out."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)

    def read(self) -> tuple[float, float]:
        """Bytes now, and the most since the last reading."""
        most = torch.cuda.max_memory_allocated(self._device) - self._before
        torch.cuda.reset_peak_memory_stats(self._device)
        return torch.cuda.memory_allocated(self._device) - self._before, most


class Clock:
    """Seconds, when a device has done what it was given."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def read(self) -> tuple[float, float]:
        """Seconds since some moment; twice."""
        wait_for(self._device)
        now = time.perf_counter()
        return now, now


class Reading(NamedTuple):
    """What a meter said at a moment of a block."""

    kind: Kind
    block: str
    now: float
    most: float


class Span(NamedTuple):
    """A pass through a block: what there was before and after, the most within, and the most since the span before."""

    entry: float
    exit: float
    most: float
    before: float


class Timeline(NamedTuple):
    """Of one step.

    Attributes:
        order: names of the blocks as the forward pass comes to them.
        forward: spans of the forward passes, in that order.
        backward: spans of the backward passes, in that order.
        end: the last reading.
    """

    order: list[str]
    forward: list[Span]
    backward: list[Span]
    end: Reading


def record(blocks: Mapping[str, nn.Module], step: Callable[[], Tensor], *meters: Meter) -> list[Timeline]:
    """Read meters at every moment of a step.

    Args:
        blocks: by name; each must be called once.
        step: the forward pass, to the loss.
        meters: what is read.

    Returns:
        A timeline for every meter.

    Raises:
        InputError: if a block is not called once, or if backward passes do not go the other way round.
    """
    readings: list[list[Reading]] = [[] for _ in meters]

    def note(kind: Kind, block: str) -> None:
        for meter, known in zip(meters, readings, strict=True):
            known.append(Reading(kind, block, *meter.read()))

    handles = [handle for name, block in blocks.items() for handle in _hooks(name, block, note)]
    try:
        loss = step()
    finally:
        for handle in handles:
            handle.remove()
    loss.backward()
    del loss
    note("end", "")
    return [_timeline(known, blocks) for known in readings]


def _hooks(name: str, block: nn.Module, note: Callable[[Kind, str], None]) -> list[Any]:
    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = next(tensors_with_gradient([*args, *kwargs.values()]), None)
        if first is not None:
            first.register_hook(lambda _: note("through", name))
        note("in", name)

    def leave(_: nn.Module, __: Any, output: Any) -> None:
        first = next(tensors_with_gradient(output), None)
        if first is not None:
            first.register_hook(lambda _: note("back", name))
        note("out", name)

    return [block.register_forward_pre_hook(enter, with_kwargs=True), block.register_forward_hook(leave)]


def _timeline(readings: list[Reading], blocks: Mapping[str, nn.Module]) -> Timeline:
    order = [reading.block for reading in readings if reading.kind == "in"]
    for name in blocks:
        if order.count(name) != 1:
            raise InputError(f"block {name!r} is called {order.count(name)} times in a step, and not once")
    back = [reading.block for reading in readings if reading.kind == "back"]
    if back != order[::-1]:
        raise InputError("blocks: their backward passes do not go the other way round, or some have no gradient")
    forward = dict(_spans(readings, "in", ("out",)))
    backward = dict(_spans(readings, "back", ("through", "back", "end")))
    return Timeline(order, [forward[n] for n in order], [backward[n] for n in order], readings[-1])


def _spans(readings: list[Reading], start: Kind, ends: tuple[Kind, ...]) -> list[tuple[str, Span]]:
    """Spans by block; `through` of another block than the open one is its neighbour's, and told already."""
    found = []
    for place, first in enumerate(readings):
        if first.kind == start:
            last = next(
                reading
                for reading in readings[place + 1 :]
                if reading.kind in ends and (reading.kind != "through" or reading.block == first.block)
            )
            found.append((first.block, Span(first.now, last.now, last.most, first.most)))
    return found
