"""The file format of captured activations: per layer and batch `(x, dy, mask)`, in one safetensors file.

An entry may have a fourth part, `stale`: row norms of the dY that the same rows had at an earlier state of the
training. A file without it is read as before, and a reader that does not know it passes over it.

An entry is `<layer>#<batch>`, or `<layer>@<call>#<batch>` for the second and later calls of a layer within one
forward pass. Layers that read one and the same tensor (q, k and v of an attention, say) share it on disk too: the
metadata say for every entry which stored tensor is its x, dy and mask, besides the format's version and what the
writer had to say about the model and the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Float32
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wtacrs.estimators.core.errors import InputError
from wtacrs.validation.files import replacing

FORMAT = "wtacrs-captures-1"
_PARTS = ("x", "dy", "mask")
_OPTIONAL_PARTS = ("stale",)


class EntryName(NamedTuple):
    """The parts of an entry's name."""

    layer: str
    call: int
    batch: str


def entry_name(entry: str) -> EntryName:
    """Layer, call and batch of an entry.

    >>> entry_name("encoder.wi#0"), entry_name("lm_head@2#17")
    (EntryName(layer='encoder.wi', call=0, batch='0'), EntryName(layer='lm_head', call=2, batch='17'))
    """
    called, _, batch = entry.rpartition("#")
    layer, at, call = called.rpartition("@")
    return EntryName(layer, int(call), batch) if at and call.isdigit() else EntryName(called, 0, batch)


@dataclass(frozen=True)
class LayerCapture:
    """The input of a linear layer, the gradient of the loss by its output, and which rows are not padding.

    `stale`, if there is one, holds the row norms of dY at an earlier state of the training, for the same rows.
    """

    x: Float[Tensor, "n d"]
    dy: Float[Tensor, "n m"]
    mask: Bool[Tensor, " n"]
    stale: Float32[Tensor, " n"] | None = None

    def __repr__(self) -> str:
        return _described(self)


def on_device(capture: LayerCapture | StoredCapture | Any, device: str | torch.device) -> LayerCapture:
    """The tensors of a capture on a device."""
    stale = getattr(capture, "stale", None)
    return LayerCapture(
        capture.x.to(device),
        capture.dy.to(device),
        capture.mask.to(device),
        None if stale is None else stale.to(device),
    )


def _described(capture: LayerCapture | StoredCapture | Any) -> str:
    """Shapes and dtype instead of numbers."""
    shapes = (
        f"x {list(capture.x.shape)}, dy {list(capture.dy.shape)}, {str(capture.x.dtype).removeprefix('torch.')}"
    )
    real = f"{int(capture.mask.sum())} of {capture.mask.numel()} rows real"
    return f"{type(capture).__name__}({shapes}, {real}{'' if capture.stale is None else ', with stale norms'})"


class OnDevice(Mapping[str, LayerCapture]):
    """Captures whose tensors are read to a device, an entry at a time."""

    def __init__(self, captures: Mapping[str, Any], device: str | torch.device) -> None:
        self._captures = captures
        self._device = device

    def __getitem__(self, entry: str) -> LayerCapture:
        return on_device(self._captures[entry], self._device)

    def __iter__(self) -> Iterator[str]:
        return iter(self._captures)

    def __len__(self) -> int:
        return len(self._captures)


class StoredCapture:
    """A `LayerCapture` on disk: a tensor is read when it is first asked for, and kept while this object lives.

    Attributes:
        names: names of the stored tensors by part; entries that share an input share its name.
    """

    def __init__(self, path: Path, names: Mapping[str, str]) -> None:
        self._path = path
        self.names = names

    @cached_property
    def x(self) -> Float[Tensor, "n d"]:
        """The layer's input."""
        return self._read("x")

    @cached_property
    def dy(self) -> Float[Tensor, "n m"]:
        """Gradient of the loss by the layer's output."""
        return self._read("dy")

    @cached_property
    def mask(self) -> Bool[Tensor, " n"]:
        """False for padding rows."""
        return self._read("mask")

    @cached_property
    def stale(self) -> Float32[Tensor, " n"] | None:
        """Row norms of dY at an earlier state of the training; None if they were not captured."""
        return self._read("stale") if "stale" in self.names else None

    def __repr__(self) -> str:
        return _described(self)

    def _read(self, part: str) -> Tensor:
        with _opened(self._path) as stored:
            return stored.get_tensor(self.names[part])


class Captures(Mapping[str, StoredCapture]):
    """A captured file, read lazily: a mapping from entry to its tensors, in the order they were captured.

    Attributes:
        path: the file.
        metadata: what the writer recorded: model, data, seed, and so on.
    """

    def __init__(self, path: Path, entries: dict[str, dict[str, str]], metadata: dict[str, Any]) -> None:
        self.path = path
        self.metadata = metadata
        self._entries = entries

    def __getitem__(self, entry: str) -> StoredCapture:
        return StoredCapture(self.path, self._entries[entry])

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        layers = len({entry_name(entry).layer for entry in self})
        return f"Captures({str(self.path)!r}, {len(self)} entries of {layers} layers)"

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the captured layers, without the batch."""
        return tuple(dict.fromkeys(entry.rpartition("#")[0] for entry in self))

    @property
    def padding(self) -> float:
        """Share of padding in the rows of all entries."""
        masks = [self[entry].mask for entry in self]
        return 1 - sum(int(mask.sum()) for mask in masks) / sum(map(len, masks))


def write_captures(path: Path, captures: Mapping[str, LayerCapture], metadata: Mapping[str, Any]) -> Path:
    """Write captures to one file, whole or not at all.

    Args:
        path: the file; parent folders are made.
        captures: tensors by entry; moved to the CPU.
        metadata: anything JSON can hold.

    Raises:
        InputError: if there is nothing to write, or the stale norms of an entry do not fit its rows.
    """
    if not captures:
        raise InputError("captures: there is no layer to write")
    for entry, capture in captures.items():
        _check_stale(entry, capture)
    tensors, entries = _shared_once(captures)
    header = {"format": FORMAT, "entries": json.dumps(entries), "metadata": json.dumps(dict(metadata))}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata=header)
    return path


def load_captures(path: str | Path) -> Captures:
    """Open a captured file; only its header is read.

    Raises:
        InputError: if the file is missing, truncated, or not written by `write_captures`.
    """
    path = Path(path)
    with _opened(path) as stored:
        header = stored.metadata() or {}
        names = set(stored.keys())
    if header.get("format") != FORMAT:
        raise InputError(f"captures={path}: not a file of captured activations (format {FORMAT})")
    entries = json.loads(header["entries"])
    missing = [name for parts in entries.values() for name in parts.values() if name not in names]
    if missing:
        raise InputError(f"captures={path}: tensor {missing[0]} is missing")
    return Captures(path, entries, json.loads(header["metadata"]))


def opened_captures(captures: Captures | str | Path) -> Captures:
    """Captures as they are, or the file of this name, opened.

    Raises:
        InputError: as `load_captures`.
    """
    return captures if isinstance(captures, Captures) else load_captures(captures)


def _check_stale(entry: str, capture: LayerCapture) -> None:
    stale, rows = capture.stale, capture.x.shape[:1]
    if stale is not None and (stale.shape != rows or stale.dtype != torch.float32):
        found = f"{stale.dtype} {list(stale.shape)}"
        raise InputError(f"captures: stale of {entry!r} must be torch.float32 {list(rows)}, got {found}")


def _shared_once(
    captures: Mapping[str, LayerCapture],
) -> tuple[dict[str, Tensor], dict[str, dict[str, str]]]:
    """Tensors to store by name, and by entry the names of its parts; a shared tensor is stored once."""
    tensors: dict[str, Tensor] = {}
    entries: dict[str, dict[str, str]] = {}
    stored_as: dict[tuple[int, torch.Size, torch.dtype, tuple[int, ...]], str] = {}
    for entry, capture in captures.items():
        entries[entry] = {}
        present = [part for part in _OPTIONAL_PARTS if getattr(capture, part) is not None]
        for part in (*_PARTS, *present):
            tensor = getattr(capture, part).detach()
            identity = (tensor.data_ptr(), tensor.shape, tensor.dtype, tensor.stride())
            name = stored_as.setdefault(identity, f"{entry}/{part}")
            entries[entry][part] = name
            if name not in tensors:
                # a copy, since other tensors may lie in the same storage
                tensors[name] = tensor.cpu().clone(memory_format=torch.contiguous_format)
    return tensors, entries


def _opened(path: Path) -> Any:
    if path.is_dir():
        raise InputError(f"captures={path} is a folder; the name of a file is needed")
    if not path.is_file():
        raise InputError(f"captures={path}: no such file; `wtacrs capture` writes one")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise InputError(f"captures={path}: not a whole safetensors file ({error})") from None
