"""Who holds the storages that a backward pass needs, as data: what is held alone, and what is shared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar, Literal

from wtacrs.estimators.core.errors import InputError
from wtacrs.validation.patterns import fits, pattern_of
from wtacrs.validation.records.base import Record

By = Literal["module", "pattern", "operation", "type"]
MODEL = "(model)"
"""The name of the model itself, which has none."""
OUTSIDE = "outside modules"
"""The name and the type of what is saved outside of the model's modules."""
NOT_RUN = "(not run)"
"""The operation of what no backward pass has asked for."""


class Owner(Record):
    """One that holds a storage: a module by its name and class, and the operation that saved it, as autograd names it."""

    module: str
    type: str
    operation: str


class KeptStorage(Record):
    """A storage that the backward pass holds. `shape` and `dtype` are those of the first tensor that was saved of it."""

    table_cells: ClassVar[Sequence[str]] = ("shape",)

    bytes: int
    shape: Sequence[int]
    dtype: str
    owners: Sequence[Owner]


class OwnerBytes(Record):
    """Bytes of one owner, or of all whose name fits one pattern.

    `alone` is what nobody else holds: it would be freed if the owner let go. `shared` is held by others too, and counts
    for each of them; so it does not add up.
    """

    table_derived: ClassVar[Sequence[str]] = ("held",)

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


_KEYS: Mapping[By, Callable[[Owner], tuple[str, ...]]] = {
    "module": lambda owner: (owner.module,),
    "pattern": lambda owner: (pattern_of(owner.module), owner.type),  # those of `nn.Sequential` are alike
    "operation": lambda owner: (owner.operation,),
    "type": lambda owner: (owner.type,),
}


def owner_bytes(kept: Iterable[KeptStorage], by: By = "module") -> list[OwnerBytes]:
    """Bytes by owner, largest first; Σ alone + what several hold, once = all that is kept.

    Args:
        kept: the storages.
        by: what tells owners apart: their module; its name with `*` for numbers, and its class; the operation; the class.

    Raises:
        InputError: on another `by`.
    """
    if by not in _KEYS:
        raise InputError(f"by={by!r} must be one of {', '.join(_KEYS)}")
    key_of = _KEYS[by]
    alone: Counter[tuple[str, ...]] = Counter()
    shared: Counter[tuple[str, ...]] = Counter()
    storages: Counter[tuple[str, ...]] = Counter()
    owners: dict[tuple[str, ...], dict[Owner, None]] = {}
    for storage in kept:
        keys = dict.fromkeys(key_of(owner) for owner in storage.owners)
        for key in keys:
            (alone if len(keys) == 1 else shared)[key] += storage.bytes
            storages[key] += 1
        for owner in storage.owners:
            owners.setdefault(key_of(owner), {}).setdefault(owner)
    found = [
        OwnerBytes(
            name=key[0],
            types=list(dict.fromkeys(owner.type for owner in who)),
            operations=list(dict.fromkeys(owner.operation for owner in who)),
            alone=alone[key],
            shared=shared[key],
            storages=storages[key],
        )
        for key, who in owners.items()
    ]
    return sorted(found, key=lambda entry: (-entry.held, entry.name, entry.types))


def within(module: str, pattern: str) -> bool:
    """Whether a module is named by a pattern, or lies within one that is.

    >>> within("encoder.block.0.dropout", "encoder.block.0"), within("encoder.block.0.dropout", "*.dropout")
    (True, True)
    """
    return fits(module, (pattern, f"{pattern}.*"))


def freed_by(kept: Iterable[KeptStorage], pattern: str = "*", *, operation: str = "*", type: str = "*") -> int:
    """Bytes that would be freed if owners let go: those whose module, operation and class all fit.

    >>> example = KeptStorage(bytes=8, shape=[2], dtype="float32", owners=[
    ...     Owner(module="0", type="Linear", operation="AddmmBackward0"),
    ...     Owner(module="1", type="ReLU", operation="ReluBackward0")])
    >>> freed_by([example], "0"), freed_by([example], "[01]"), freed_by([example], type="ReLU")
    (0, 8, 0)
    """
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
    key_of = _KEYS[by]
    return sum(storage.bytes for storage in kept if len({key_of(owner) for owner in storage.owners}) > 1)
