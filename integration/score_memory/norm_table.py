"""A table of bf16 norms, one row per token of every example and one column per layer, in memory or on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import BFloat16, Int64
from torch import Tensor

from wtacrs.estimators.core.errors import InputError

UNSEEN = -1.0
_GROWTH = 1.5
_LARGEST_ID = 2**31


class NormTable:
    """Ragged: an example takes as many rows as it has tokens, in the order in which examples are first seen.

    All layers of a token lie side by side, so that a batch is read and written an example at a time, which is what a
    table on disk needs. An example that comes back longer gets a new place, with what was known of it.

    Args:
        path: file that holds the values, made anew (`numpy.memmap`); in memory if None.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.columns: list[str] = []
        self._start = torch.zeros(0, dtype=torch.int64)
        self._length = torch.zeros(0, dtype=torch.int32)
        self._used = 0
        self._values = torch.zeros(0, 0, dtype=torch.bfloat16)

    @property
    def examples(self) -> int:
        """How many examples have a place."""
        return int((self._length > 0).sum())

    @property
    def nbytes(self) -> int:
        """Bytes of the values, reserve included, and of the index."""
        return sum(t.numel() * t.element_size() for t in (self._values, self._start, self._length))

    def places(self, ids: Int64[Tensor, " b"], lengths: Int64[Tensor, " b"]) -> Int64[Tensor, " b"]:
        """The first row of every example, of which the following `lengths` rows are its own too."""
        self._make_room_for(ids)
        needed = torch.zeros_like(self._length).scatter_reduce(0, ids, lengths.int(), "amax")
        for example in torch.nonzero(needed > self._length).flatten().tolist():
            self._move(example, int(needed[example]))
        return self._start[ids]

    def read(self, places: Int64[Tensor, " n"]) -> BFloat16[Tensor, "n columns"]:
        """The rows at these places; `UNSEEN` where the place is −1."""
        found = self._values[places.clamp(min=0)] if self._values.shape[0] else self._unseen(places.shape[0])
        return torch.where((places >= 0).unsqueeze(1), found, UNSEEN)

    def write(self, places: Int64[Tensor, " n"], column: str, norms: Tensor) -> None:
        """Set a column at the places that are not −1."""
        if column not in self.columns:
            self.columns.append(column)
            self._resize(self._values.shape[0])
        known = places >= 0
        self._values[places[known], self.columns.index(column)] = norms[known].to(torch.bfloat16)

    def state_dict(self) -> dict[str, Any]:
        """Columns, index and values."""
        return {
            "columns": list(self.columns),
            "start": self._start.clone(),
            "length": self._length.clone(),
            "values": self._values[: self._used].clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace everything by what `state_dict` returned; a file is written anew."""
        self.columns = list(state["columns"])
        self._start, self._length = state["start"].clone(), state["length"].clone()
        self._used = state["values"].shape[0]
        self._values = torch.zeros(0, 0, dtype=torch.bfloat16)
        self._resize(self._used)
        self._values[: self._used] = state["values"]

    def _make_room_for(self, ids: Tensor) -> None:
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= _LARGEST_ID):
            bad = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
            raise InputError(f"example_ids: {bad} is not a position in a data set, 0 to {_LARGEST_ID - 1}")
        missing = int(ids.max()) + 1 - self._start.shape[0] if ids.numel() else 0
        if missing > 0:
            missing = max(missing, int(self._start.shape[0] * (_GROWTH - 1)))
            self._start = torch.cat([self._start, self._start.new_zeros(missing)])
            self._length = torch.cat([self._length, self._length.new_zeros(missing)])

    def _move(self, example: int, length: int) -> None:
        if self._used + length > self._values.shape[0]:
            self._resize(max(self._used + length, int(self._values.shape[0] * _GROWTH)))
        start, before = int(self._start[example]), int(self._length[example])
        if before:
            self._values[self._used : self._used + before] = self._values[start : start + before].clone()
        self._start[example], self._length[example] = self._used, length
        self._used += length

    def _resize(self, rows: int) -> None:
        before = self._values
        self._values = self._unseen(rows) if self._path is None else self._on_disk(self._path, rows)
        kept = min(before.shape[0], rows)
        self._values[:kept, : before.shape[1]] = before[:kept]

    def _unseen(self, rows: int) -> Tensor:
        return torch.full((rows, len(self.columns)), UNSEEN, dtype=torch.bfloat16)

    def _on_disk(self, path: Path, rows: int) -> Tensor:
        if rows * len(self.columns) == 0:
            return self._unseen(rows)  # an empty file cannot be mapped
        partial = path.with_name(f".{path.name}.part")
        mapped = np.memmap(partial, dtype=np.int16, mode="w+", shape=(rows, len(self.columns)))
        os.replace(partial, path)  # what is mapped stays mapped
        values = torch.from_numpy(mapped).view(torch.bfloat16)
        values.fill_(UNSEEN)
        return values
