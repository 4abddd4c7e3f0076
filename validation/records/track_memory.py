"""What a training step keeps for its backward pass, storage by storage, with all that hold it, as data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from wtacrs.validation.records.base import Result, register_result
from wtacrs.validation.records.owners import (
    By,
    KeptStorage,
    OwnerBytes,
    freed_by,
    owner_bytes,
    shared_bytes,
    within,
)
from wtacrs.validation.records.units import megabytes


@register_result
class TrackedMemoryResult(Result):
    """The memory of a training step: what its backward pass holds when it begins, and what is alive beside it, in bytes.

    `kept` is without parameters, buffers and the `batch`, largest first. Of several backward passes it is the one with
    most. `gradients` is the most at the end of a backward pass, `optimizer` its states (None if none was given),
    `score_memory` what a converted model remembers of gradient norms. `device_peak` is the most that CUDA's allocator had
    given out since the block began, of which `device_before` was in use by then; None elsewhere.
    """

    table_derived: ClassVar[Sequence[str]] = ("total",)

    kind: Literal["tracked memory"] = "tracked memory"
    model: str
    kept: Sequence[KeptStorage]
    backward_passes: int
    parameters: int
    buffers: int
    gradients: int
    batch: int
    optimizer: int | None = None
    score_memory: int = 0
    device_peak: int | None = None
    device_before: int | None = None

    @property
    def total(self) -> int:
        """All that is kept for the backward pass."""
        return sum(storage.bytes for storage in self.kept)

    def owners(self, pattern: str = "*") -> list[KeptStorage]:
        """What modules hold whose name fits a pattern, or that lie within such a module."""
        return [entry for entry in self.kept if any(within(owner.module, pattern) for owner in entry.owners)]

    def freed_by(self, pattern: str = "*", *, operation: str = "*", type: str = "*") -> int:
        """Bytes that would be freed if owners let go: those whose module, operation and class all fit."""
        return freed_by(self.kept, pattern, operation=operation, type=type)

    def by(self, by: By = "module") -> list[OwnerBytes]:
        """Bytes by owner, largest first."""
        return owner_bytes(self.kept, by)


def tracked_memory_sentences(result: TrackedMemoryResult) -> Iterator[str]:
    """What is kept, what would be freed, and what is alive beside it."""
    shared = shared_bytes(result.kept)
    yield (
        f"{megabytes(result.total)} MB in {len(result.kept)} storages are kept for the backward pass: "
        f"{megabytes(result.total - shared)} by one module each, {megabytes(shared)} by several together"
    )
    kinds: tuple[tuple[By, str], ...] = (("operation", "operations"), ("type", "types of module"))
    for by, what in kinds:
        largest = sorted(result.by(by), key=lambda entry: -entry.alone)[:3]
        told = ", ".join(f"{entry.name} {megabytes(entry.alone)}" for entry in largest if entry.alone)
        if told:
            yield f"{what} that would free most by letting go, MB: {told}"
    yield f"beside it, MB: {', '.join(f'{name} {megabytes(size)}' for name, size in beside(result))}"
    if result.backward_passes > 1:
        yield f"of {result.backward_passes} backward passes it is the one that held most"


def beside(result: TrackedMemoryResult) -> list[tuple[str, int]]:
    """What is alive beside what is kept, by name."""
    found: list[tuple[str, int | None]] = [
        ("parameters", result.parameters),
        ("buffers", result.buffers),
        ("gradients", result.gradients),
        ("optimizer states", result.optimizer),
        ("score memory", result.score_memory or None),
        ("batch", result.batch),
        ("peak of the device", result.device_peak),
        ("of it before", result.device_before),
    ]
    return [(name, size) for name, size in found if size is not None]
