"""What one training step keeps for its backward pass, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from wtacrs.validation.records.base import Record, Result, register_result


class TypeBytes(Record):
    """Bytes that modules of one type keep, or that several types keep together: what one gives up stays for the other.

    `types` are class names, converted layers as "Linear"; `modules` is the number of modules that keep something.
    """

    types: Sequence[str]
    modules: int
    bytes: int

    @property
    def name(self) -> str:
        """The types in one word."""
        return " + ".join(self.types)

    @property
    def ours(self) -> bool:
        """Kept by linear layers alone, so that an estimator can keep less."""
        return tuple(self.types) == ("Linear",)


class StepMemory(Record):
    """One way to take a training step.

    `saved` is what is alive at the end of the forward pass for the sake of the backward pass, largest first; parameters,
    buffers and the batch are left out. `peak` is the most that is alive at any moment of forward and backward pass beyond
    them, gradients of the parameters included: on the CPU the sum of all tensors' storages, on CUDA
    `max_memory_allocated`. `converted` is the number of converted layers.
    """

    estimator: str
    checkpointing: bool
    converted: int
    saved: Sequence[TypeBytes]
    peak: int

    @property
    def name(self) -> str:
        """As it is shown."""
        return f"{self.estimator} + checkpointing" if self.checkpointing else self.estimator

    @property
    def total(self) -> int:
        """All that is saved."""
        return sum(entry.bytes for entry in self.saved)

    @property
    def ours(self) -> int:
        """The part that estimators work on."""
        return sum(entry.bytes for entry in self.saved if entry.ours)


@register_result
class MemoryResult(Result):
    """A training step of one model on one batch, in several ways; the first is exact. `parameters` is in bytes."""

    kind: Literal["memory"] = "memory"
    model: str
    task: str
    batch_size: int
    tokens: int
    precision: Literal["fp32", "bf16"]
    parameters: int
    steps: Sequence[StepMemory]
