"""What a training step keeps for its backward pass, storage by storage, with all that hold it, as data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from wtacrs.validation.patterns import fits, pattern_of
from wtacrs.validation.records.base import Record, Result, register_result
from wtacrs.validation.records.memory import megabytes

By = Literal["module", "pattern", "operation", "type"]
MODEL = "(model)"
"""The name of the model itself, which has none."""
NOT_RUN = "(not run)"
"""The operation of what no backward pass has asked for."""


class Owner(Record):
    """One that holds a storage: a module by its name and class, and the operation that saved it, as autograd names it."""

    module: str
    type: str
    operation: str


class KeptStorage(Record):
    """A storage that the backward pass holds. `shape` and `dtype` are those of the first tensor that was saved of it."""

    bytes: int
    shape: Sequence[int]
    dtype: str
    owners: Sequence[Owner]


class OwnerBytes(Record):
    """Bytes of one owner, or of all whose name fits one pattern.

    `alone` is what nobody else holds: it would be freed if the owner let go. `shared` is held by others too, and counts
    for each of them; so it does not add up.
    """

    name: str
    types: Sequence[str]
    operations: Sequence[str]
    alone: int
    shared: int
    storages: int

    @property
    def held(self) -> int:
        """All that the owner holds."""
        return self.alone + self.shared


_NAMES: Mapping[By, Callable[[Owner], str]] = {
    "module": lambda owner: owner.module,
    "pattern": lambda owner: pattern_of(owner.module),
    "operation": lambda owner: owner.operation,
    "type": lambda owner: owner.type,
}


def owner_bytes(kept: Iterable[KeptStorage], by: By = "module") -> list[OwnerBytes]:
    """Bytes by owner, largest first; Σ alone + what several hold, once = all that is kept.

    Args:
        kept: the storages.
        by: what tells owners apart: their module, its name with `*` for numbers, the operation or the module's class.
    """
    name_of = _NAMES[by]
    alone: dict[str, int] = {}
    shared: dict[str, int] = {}
    storages: dict[str, int] = {}
    owners: dict[str, dict[Owner, None]] = {}
    for storage in kept:
        names = dict.fromkeys(name_of(owner) for owner in storage.owners)
        for name in names:
            sums = alone if len(names) == 1 else shared
            sums[name] = sums.get(name, 0) + storage.bytes
            storages[name] = storages.get(name, 0) + 1
        for owner in storage.owners:
            owners.setdefault(name_of(owner), {}).setdefault(owner)
    found = [
        OwnerBytes(
            name=name,
            types=list(dict.fromkeys(owner.type for owner in who)),
            operations=list(dict.fromkeys(owner.operation for owner in who)),
            alone=alone.get(name, 0),
            shared=shared.get(name, 0),
            storages=storages[name],
        )
        for name, who in owners.items()
    ]
    return sorted(found, key=lambda entry: (-entry.held, entry.name))


def within(module: str, pattern: str) -> bool:
    """Whether a module is named by a pattern, or lies within one that is.

    >>> within("encoder.block.0.dropout", "encoder.block.0"), within("encoder.block.0.dropout", "*.dropout")
    (True, True)
    """
    return fits(module, (pattern, f"{pattern}.*"))


@register_result
class TrackedMemoryResult(Result):
    """The memory of a training step: what its backward pass holds when it begins, and what is alive beside it, in bytes.

    `kept` is without parameters, buffers and the `batch`, largest first. Of several backward passes it is the one with
    most. `gradients` is the most at the end of a backward pass, `optimizer` its states (None if none was given),
    `score_memory` what a converted model remembers of gradient norms. `device_peak` is the most that CUDA's allocator had
    given out since the block began, of which `device_before` was in use by then; None elsewhere.
    """

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
        """Bytes that would be freed if owners let go: those whose module, operation and class all fit.

        >>> example = KeptStorage(bytes=8, shape=[2], dtype="float32", owners=[
        ...     Owner(module="0", type="Linear", operation="AddmmBackward0"),
        ...     Owner(module="1", type="ReLU", operation="ReluBackward0")])
        >>> freed_by([example], "0"), freed_by([example], "[01]"), freed_by([example], type="ReLU")
        (0, 8, 0)
        """
        return freed_by(self.kept, pattern, operation=operation, type=type)

    def by(self, by: By = "module") -> list[OwnerBytes]:
        """Bytes by owner, largest first."""
        return owner_bytes(self.kept, by)


def freed_by(kept: Iterable[KeptStorage], pattern: str = "*", *, operation: str = "*", type: str = "*") -> int:
    """Bytes of storages all of whose owners fit: `TrackedMemoryResult.freed_by`."""
    return sum(
        storage.bytes
        for storage in kept
        if all(
            within(owner.module, pattern) and fits(owner.operation, [operation]) and fits(owner.type, [type])
            for owner in storage.owners
        )
    )


def shared_bytes(kept: Iterable[KeptStorage], by: By = "module") -> int:
    """Bytes that several owners hold, every storage once."""
    name_of = _NAMES[by]
    return sum(storage.bytes for storage in kept if len({name_of(owner) for owner in storage.owners}) > 1)


def tracked_memory_sentences(result: TrackedMemoryResult) -> Iterator[str]:
    """What is kept, what would be freed, and what is alive beside it."""
    shared = shared_bytes(result.kept)
    yield (
        f"{megabytes(result.total)} MB in {len(result.kept)} storages are kept for the backward pass: "
        f"{megabytes(result.total - shared)} by one module each, {megabytes(shared)} by several together"
    )
    for by, what in (("operation", "operations"), ("type", "types of module")):
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
