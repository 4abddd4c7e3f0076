"""Gradient norms that are remembered by place: of every row it is known beforehand where its norm is entered."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from wtacrs.estimators import row_norms
from wtacrs.integration.context.forward_pass import ForwardPass
from wtacrs.integration.context.streams import Stream
from wtacrs.integration.score_memory.gradient_norms import GradientNorms
from wtacrs.integration.score_memory.seen_rows import SeenRows


@dataclass(eq=False)
class Note:
    """What a memory keeps of one forward pass until the next: where its rows belong, and the dY that were seen.

    Attributes:
        places: by kind of row, for every row the place in the memory, −1 for rows that have none; None if there is no
            way to tell.
        read: what was looked up, by kind of row; frozen for the pass.
        squares: by layer, the kind of its rows and Σ ‖y_i‖² over the layers that share its sample.
    """

    places: dict[str, Int64[Tensor, " n"] | None] = field(default_factory=dict)
    read: dict[str, Any] = field(default_factory=dict)
    squares: dict[str, tuple[str, Float64[Tensor, " n"]]] = field(default_factory=dict)


class NormsByPlace(GradientNorms):
    """Tables of norms: a kind of memory says which place a row has, and how a table is read and written."""

    def __init__(self, *, floor: float) -> None:
        super().__init__(floor=floor)
        self._seen: list[Note] = []

    def grad_rows_hook(
        self, current: ForwardPass, layer: str, stream: Stream | None, shape: torch.Size, call: object
    ) -> Callable[[Tensor, SeenRows | None], None]:
        """See `GradientNorms.grad_rows_hook`."""
        note = self._note(current)
        kind = self._kind_of_rows(current, layer, stream, shape)
        return partial(self._observe, note, layer, kind)

    def enter(self) -> None:
        """See `GradientNorms.enter`."""
        for note in self._seen:
            for layer, (kind, squares) in note.squares.items():
                places = note.places.get(kind)
                if places is not None:
                    norms = squares.sqrt().to(places.device)
                    known = (places >= 0) & norms.isfinite()
                    self._write(kind, layer, torch.where(known, places, -1), torch.where(known, norms, 0.0))
            note.squares = {}
        self._seen = []

    @abstractmethod
    def _kind_of_rows(self, current: ForwardPass, layer: str, stream: Stream | None, shape: torch.Size) -> str:
        """Name for rows that have the same places in all layers."""

    @abstractmethod
    def _places(
        self, current: ForwardPass, kind: str, stream: Stream | None, shape: torch.Size
    ) -> Int64[Tensor, " n"] | None:
        """Place of every row in the memory, −1 for none; None if there is no way to tell."""

    @abstractmethod
    def _read(
        self, note: Note, kind: str, layer: str, places: Tensor, device: torch.device
    ) -> Float64[Tensor, " n"]:
        """Expected norms, −1 where nothing is remembered."""

    @abstractmethod
    def _write(self, kind: str, layer: str, places: Tensor, norms: Float64[Tensor, " n"]) -> None:
        """Enter the norms of the rows whose place is not −1."""

    def _expected(
        self,
        current: ForwardPass,
        layer: str,
        stream: Stream | None,
        x: Float[Tensor, "*batch d"],
        mask: Bool[Tensor, " n"] | None,
    ) -> Float64[Tensor, " n"] | None:
        note, shape = self._note(current), x.shape[:-1]
        kind = self._kind_of_rows(current, layer, stream, shape)
        if kind not in note.places:
            note.places[kind] = self._places(current, kind, stream, shape)
        places = note.places[kind]
        return None if places is None else self._read(note, kind, layer, places, x.device)

    def _note(self, current: ForwardPass) -> Note:
        if self not in current.notes:
            self.enter()
            current.notes[self] = Note()
        note: Note = current.notes[self]
        return note

    def _observe(self, note: Note, layer: str, kind: str, dy: Tensor, _: SeenRows | None) -> None:
        squares = row_norms(dy).square()
        if layer in note.squares:
            squares = note.squares[layer][1] + squares
        note.squares[layer] = (kind, squares)
        if note not in self._seen:
            self._seen.append(note)
