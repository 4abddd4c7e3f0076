"""Storages that autograd saves for a backward pass, every one once, with what saved them."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from wtacrs.integration.layers.dynamic_classes import own_class
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.layers.lean.classes import LeanModule
from wtacrs.validation.records.owners import OUTSIDE

Keeper = TypeVar("Keeper", bound=Hashable)
CASTS = "casts of weights"
"""Their own type of layer, in tables."""


class Storage(NamedTuple):
    """Bytes of a storage that is alive, and what saved it."""

    bytes: int
    keepers: frozenset[Any]


class Packed:
    """What takes the place of a saved tensor: alive for as long as a graph holds it.

    Attributes:
        tensor: the tensor, without its graph.
        keeper: what saved it.
    """

    __slots__ = ("__weakref__", "_version", "keeper", "tensor")

    def __init__(self, tensor: Tensor, keeper: Any) -> None:
        self.tensor, self.keeper = tensor, keeper
        self._version = None if tensor.is_inference() else tensor._version

    def unpack(self) -> Tensor:
        """The tensor, as autograd gives it: it leaves this check to the hooks where there are any.

        Raises:
            RuntimeError: if the tensor was changed in place since it was saved.
        """
        if self._version is not None and self.tensor._version != self._version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: "
                f"[{self.tensor.type()} {list(self.tensor.shape)}] is at version {self.tensor._version}; "
                f"expected version {self._version} instead"
            )
        return self.tensor


class SavedStorages(Generic[Keeper]):
    """What a saved-tensor hook has seen. Nothing is held: what is freed in the meantime is no longer found.

    Args:
        keeper: called with every tensor that is saved; says for whom.
    """

    def __init__(self, keeper: Callable[[Tensor], Keeper]) -> None:
        self._keeper = keeper
        self._keepers: dict[StorageWeakRef, set[Keeper]] = {}

    def pack(self, tensor: Tensor) -> Packed:
        """The hook: enter a tensor that is being saved, and give what takes its place in the graph.

        An output that stands in its own graph would be a reference cycle, never freed unless a backward pass is run.
        """
        tensor = tensor.detach()
        return Packed(tensor, self.note(tensor))

    def note(self, tensor: Tensor) -> Keeper:
        """Enter a tensor, and say who keeps it."""
        keeper = self._keeper(tensor)
        self.enter(tensor, keeper)
        return keeper

    def enter(self, tensor: Tensor, keeper: Keeper) -> None:
        """Enter a tensor that is known to be kept by somebody."""
        for storage in storages_of(tensor):
            self._keepers.setdefault(storage, set()).add(keeper)

    def alive(self, apart: Container[StorageWeakRef] = ()) -> dict[StorageWeakRef, Storage]:
        """What is alive now, `apart` left out, with its size now: a sharded weight may be alive and empty."""
        found = {}
        for reference, keepers in self._keepers.items():
            size = bytes_alive(reference)
            if size and reference not in apart:
                found[reference] = Storage(size, frozenset(keepers))
        return found

    def forget_freed(self) -> None:
        """Let go what is known of storages that are no more."""
        self._keepers = {key: keepers for key, keepers in self._keepers.items() if not key.expired()}


def unpacked(packed: Packed) -> Tensor:
    """The hook of the backward pass: what was packed, as it is."""
    return packed.unpack()


def storages_of(tensor: Tensor) -> Iterator[StorageWeakRef]:
    """The storages of a tensor, those of the tensors that a wrapper such as `DTensor` holds; none of a sparse tensor."""
    inner = getattr(tensor, "__tensor_flatten__", None)
    if inner is not None:
        for name in inner()[0]:
            part = getattr(tensor, name)
            if isinstance(part, Tensor):  # a `DTensor` names its mesh too
                yield from storages_of(part)
    elif tensor.layout is torch.strided:
        yield StorageWeakRef(tensor.untyped_storage())


def bytes_alive(reference: StorageWeakRef) -> int:
    """Size of a storage now, 0 if it has been freed."""
    storage = torch.UntypedStorage._new_with_weak_ptr(reference.cdata)
    return 0 if storage is None else storage.nbytes()


def type_name(module: nn.Module | None) -> str:
    """The class of a module, of a converted layer the stock one."""
    if module is None:
        return OUTSIDE
    stock = module.stock if isinstance(module, (EstimatedWeightGrad, LeanModule)) else own_class(module)
    return stock.__name__


def is_cast(tensor: Tensor, module: nn.Module | None) -> bool:
    """Whether a saved tensor is the weight of a module in another dtype, by its values."""
    weight = (
        None if module is None else module._parameters.get("weight")
    )  # a computed weight would be computed anew
    if weight is None or tensor.dtype == weight.dtype or not tensor.is_floating_point():
        return False
    if tensor.numel() != weight.numel():
        return False
    with torch.no_grad():
        cast = weight.to(tensor.dtype)
        return torch.equal(tensor, cast) or (cast.ndim == 2 and torch.equal(tensor, cast.T))
