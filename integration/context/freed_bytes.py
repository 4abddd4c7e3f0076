"""Whether converted layers free anything: what they keep of their inputs, beside the inputs that nothing else keeps."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


class StockInput(NamedTuple):
    """What a stock linear layer keeps of its input: `key` is the input's storage, or an object for a copy of its own."""

    key: Hashable
    bytes: int

    @property
    def alive(self) -> bool:
        """Whether something else holds it now; a copy of its own is made by the stock layer alone."""
        return isinstance(self.key, StorageWeakRef) and not self.key.expired()


def stock_input(x: Tensor, dtype: torch.dtype) -> StockInput:
    """What `F.linear` keeps of an input `[..., d]` that it reads in a dtype; the input itself is not held.

    Kept is the storage of x, all of it. Where x is cast, and where its rows are no view `[n, d]`, it is a copy instead,
    anew in every call, but for parameters, of which autocast makes one cast. The same is true of the weight.
    """
    if dtype != x.dtype and _autocast_remembers(x):
        return StockInput((StorageWeakRef(x.untyped_storage()), dtype), x.numel() * dtype.itemsize)
    if dtype != x.dtype or not _rows_are_a_view(x):
        return StockInput(object(), x.numel() * dtype.itemsize)
    storage = x.untyped_storage()
    return StockInput(StorageWeakRef(storage), storage.nbytes())


def _autocast_remembers(x: Tensor) -> bool:
    remembered = x.dtype == torch.float32 and x.is_leaf and x.requires_grad and not x._is_view()
    return remembered and torch.is_autocast_cache_enabled()


def _rows_are_a_view(x: Tensor) -> bool:
    if x.ndim <= 2 or x.is_contiguous():
        return True
    try:
        x.detach().view(-1, x.shape[-1])
    except RuntimeError:
        return False
    return True


class FreedBytes:
    """The balance of one forward pass: copies kept by converted layers, inputs that are gone because of that.

    Only weak references are held. Layers inside a block that is recomputed keep nothing outside of it, and do not count;
    neither do those whose copies a hook has moved elsewhere, nor those whose output nothing needs.
    """

    def __init__(self) -> None:
        self._calls: list[tuple[str, StockInput, dict[StorageWeakRef, int]]] = []

    @property
    def calls(self) -> int:
        """How many calls were entered."""
        return len(self._calls)

    def note(self, layer: str, x: Tensor, kept: Any, dtype: torch.dtype | None = None) -> None:
        """Enter a call of a converted layer that samples.

        Args:
            layer: its name.
            x: its input, as the layer was given it.
            kept: what the estimator returned: nested tuples of tensors; for layers that share a copy, the same.
            dtype: in which the layer reads the input: under autocast, autocast's; None for that of x.
        """
        copies = {}
        for tensor in tensors_in(kept):
            storage = tensor.untyped_storage()
            copies[StorageWeakRef(storage)] = storage.nbytes()
        self._calls.append((layer, stock_input(x, dtype or x.dtype), copies))

    def told(self) -> str | None:
        """What is to be said when the backward pass begins, in one line; None if the conversion frees more than it keeps.

        At the end of the forward pass the model's output still holds tensors that may be gone by then.
        """
        calls = [call for call in self._calls if any(not reference.expired() for reference in call[2])]
        kept = sum(
            {ref: size for *_, copies in calls for ref, size in copies.items() if not ref.expired()}.values()
        )
        freed = sum({found.key: found.bytes for _, found, _ in calls if not found.alive}.values())
        if not calls or kept < freed:
            return None
        layers = list(dict.fromkeys(layer for layer, *_ in calls))
        held = list(dict.fromkeys(layer for layer, found, _ in calls if found.alive))
        return (
            f"{_who(layers, held)}: {readable_bytes(kept - freed)} more are kept than in exact training "
            f"(copies {readable_bytes(kept)}, freed {readable_bytes(freed)}); leave them exact with filter_fn, "
            "choose a smaller budget, or let the operation before keep its input, as GELU does, and not its output"
        )


def tensors_in(kept: Any) -> Iterator[Tensor]:
    """All tensors of nested tuples, as `compress` returns them."""
    for part in kept:
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, tuple):
            yield from tensors_in(part)


def readable_bytes(size: int) -> str:
    """Bytes in a unit that leaves few digits.

    >>> readable_bytes(0), readable_bytes(2304), readable_bytes(14_700_000)
    ('0 B', '2.3 kB', '14.7 MB')
    """
    for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def _who(layers: list[str], held: list[str]) -> str:
    if not held:
        return f"{len(layers)} converted layers keep copies as large as their inputs ({_some(layers)})"
    return (
        f"{len(held)} of {len(layers)} converted layers read what something else keeps anyway, the operation before, "
        f"another layer or the caller ({_some(held)})"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
