"""What a sampler may remember of gradient norms while it trains: the base class of every kind of memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor, nn

from wtacrs.estimators import row_norms
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.scores import floored_scores
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.context.forward_pass import ForwardPass
from wtacrs.integration.context.streams import Stream
from wtacrs.validation.arguments import is_number
from wtacrs.validation.records.base import hyphenated

FLOOR = 0.5
"""ε while training: what is remembered may mislead, and then at most doubles the second moment of even sampling."""


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


class GradientNorms(ABC):
    """Expected row norms of dY, learnt in the backward passes of the layers that are sampled by them.

    The scores of a layer are `floored_scores(‖x_i‖, expected_i)`: with ε = `floor` of the probability spread evenly the
    estimate is unbiased and its weights bounded, whatever is remembered, and the second moment `Σ w_i²/p_i` is at most
    1/ε times that of even sampling. Rows of which nothing is remembered count with the root mean square of the others, so
    that all are on one scale; where nothing is remembered of any row, the scores are the row norms. A layer that draws
    the sample for several layers (see `SharedInputs`) remembers `√Σ_c ‖y_i^(c)‖²` over all of them, which minimises the
    sum of their variances.

    What backward passes show is entered when the next forward pass begins, and in `state_dict`. So what is looked up
    does not change within a pass: a layer that activation checkpointing runs again gets the scores it had. Gradients that
    are NaN or infinite (a loss scale that was too large) are not entered.

    Norms are those of dY as it comes: of the loss divided by the number of accumulated batches, times the loss scale.
    Within a batch only their ratios count.

    Attributes:
        kind: name of this kind of scores.
        needs_ids: whether examples must be told apart.
        ids: positions of the next batch's examples in their data set, `[batch]`, where they were stated by hand.
        floor: ε.
    """

    kind: ClassVar[str]
    needs_ids: ClassVar[bool] = False

    def __init__(self, *, floor: float) -> None:
        if not is_number(floor) or not 0 < floor <= 1:
            raise InputError(f"floor={floor!r} must be in (0, 1]: without a floor a remembered zero makes a bias")
        self.floor = floor
        self.ids: Tensor | None = None
        self._seen: list[Note] = []

    def scores(
        self,
        current: ForwardPass,
        layer: str,
        stream: Stream | None,
        shape: torch.Size,
        norms: Float64[Tensor, " n"],
        mask: Bool[Tensor, " n"] | None,
    ) -> Float64[Tensor, " n"]:
        """Scores for the rows of an input of a layer; their norms where there is no way to tell more.

        Args:
            current: the forward pass.
            layer: its name.
            stream: the sequence that the rows run along.
            shape: `*batch` of the input.
            norms: row norms of the input.
            mask: False at rows called padding, whose scores are 0; None if none is in use.
        """
        found = self._look_up(current, layer, stream, shape, norms.device)
        if found is None:
            return norms
        seen = found >= 0
        total = torch.where(seen, found, 0.0).square().sum()
        usual = (total / seen.sum().clamp(min=1)).sqrt()
        return floored_scores(norms, torch.where(seen, found, usual), mask, self.floor)

    def grad_rows_hook(
        self, current: ForwardPass, layer: str, stream: Stream | None, shape: torch.Size
    ) -> Callable[[Tensor], None]:
        """What is to be called with the rows of dY that belong to the sample which `layer` drew."""
        note = self._note(current)
        kind = self._kind_of_rows(current, layer, stream, shape)
        return partial(self._observe, note, layer, kind)

    def enter(self) -> None:
        """Put into the memory what backward passes have shown since it was last done."""
        for note in self._seen:
            for layer, (kind, squares) in note.squares.items():
                places = note.places.get(kind)
                if places is not None:
                    norms = squares.sqrt().to(places.device)
                    known = (places >= 0) & norms.isfinite()
                    self._write(kind, layer, torch.where(known, places, -1), torch.where(known, norms, 0.0))
            note.squares = {}
        self._seen = []

    def attach(self, model: nn.Module) -> None:  # noqa: B027 (most kinds have nothing to get ready)
        """Get ready for a model that is being converted."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the memory."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything remembered, on the CPU and apart from what is remembered later: tensors, numbers, texts."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            InputError: if it is of another kind or size.
        """

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

    def _look_up(
        self, current: ForwardPass, layer: str, stream: Stream | None, shape: torch.Size, device: torch.device
    ) -> Float64[Tensor, " n"] | None:
        note = self._note(current)
        kind = self._kind_of_rows(current, layer, stream, shape)
        if kind not in note.places:
            note.places[kind] = self._places(current, kind, stream, shape)
        places = note.places[kind]
        return None if places is None else self._read(note, kind, layer, places, device)

    def _note(self, current: ForwardPass) -> Note:
        if self not in current.notes:
            self.enter()
            current.notes[self] = Note()
        return current.notes[self]

    def _observe(self, note: Note, layer: str, kind: str, dy: Tensor) -> None:
        squares = row_norms(dy).square()
        if layer in note.squares:
            squares = note.squares[layer][1] + squares
        note.squares[layer] = (kind, squares)
        if note not in self._seen:
            self._seen.append(note)

    def _check_kind(self, state: dict[str, Any]) -> None:
        if hyphenated(state.get("kind")) != self.kind:  # states of older runs have spaces
            raise InputError(f"scores={self.kind!r}: the state is of scores={state.get('kind')!r}")


def gradient_norms_of(model: nn.Module) -> GradientNorms | None:
    """What the layers of a converted model remember of gradient norms; None for row norms and unconverted models."""
    context = ForwardContext.of(model)
    memory = None if context is None else context.score_memory
    return memory if isinstance(memory, GradientNorms) else None
