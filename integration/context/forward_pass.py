"""One forward pass of a converted model: what its layers may know of it, again when a part of it is recomputed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from wtacrs.estimators.core.scores import has_values
from wtacrs.integration.context.draws import Draws, PassDraws
from wtacrs.integration.context.freed_bytes import FreedBytes
from wtacrs.integration.context.masks import moved
from wtacrs.integration.context.shared_inputs import SharedInputs
from wtacrs.integration.context.streams import Stream


@dataclass(eq=False)
class Frame:
    """What the arguments of one module's call say; the calls that are under way lie within each other.

    Attributes:
        masks: `[batch, positions]`, True for a row that may carry a gradient.
        tokens: `[batch, positions]` by stream: the token read, or the label wherever the target has one.
        arguments: that the masks were made of, one each; None where it was none.
        open: whether it is an encoder–decoder that is told nothing of its target, of which a call around it may know.
    """

    masks: Sequence[Tensor] = ()
    tokens: dict[Stream, Tensor] = field(default_factory=dict)
    arguments: Sequence[Any] = ()
    open: bool = False


class ForwardPass:
    """Masks, tokens and example ids of one forward pass, and the random numbers that its layers draw.

    A mask is found by its shape alone, in the innermost call that has one that fits. So an encoder that a wrapper calls
    once for the query and once for the document reads the mask of each. What a module hands on to one inside keeps what
    is known of it: that labels ask for padded rows. Where several fit, a row is padding if all say so; those of a call
    around it count too where a call leaves its target `open`. A layer that is recomputed finds the masks of all calls of
    the pass.

    Attributes:
        ids: positions of the examples in their data set, `[batch]`, or None.
        known: False for layers that run outside any forward pass, of which nothing is known.
        notes: what a score memory keeps of this pass, by the memory.
        live: rows that count as live, by layer and shape, where budgets are shares of them.
        shared: inputs that several layers read.
        freed: the balance of copies and inputs, in a pass in which it is drawn up.
    """

    def __init__(self, draws: Draws, *, ids: Tensor | None = None, known: bool = True) -> None:
        self.ids, self.known = ids, known
        self.freed: FreedBytes | None = None
        self.notes: dict[Any, Any] = {}
        self.live: dict[tuple[str, torch.Size], int] = {}
        self.shared = SharedInputs()
        self._draws = PassDraws(draws)
        self._given: list[Frame] = []
        self._calls: list[Frame] = []
        self._seen: list[Frame] = []

    def give(self, frames: Sequence[Frame]) -> None:
        """Masks that were stated by hand, which come before all that are found."""
        self._given = list(frames)

    def enter(self, frame: Frame) -> None:
        """A call begins within the pass."""
        frame.masks = [*map(self._with_what_is_known, frame.masks, frame.arguments)] or frame.masks
        self._calls.append(frame)
        if frame.masks or frame.tokens:
            self._seen.append(frame)

    def leave(self) -> None:
        """The innermost call ends."""
        self._calls.pop()

    def mask(self, shape: torch.Size, device: torch.device | None = None) -> Tensor | None:
        """The mask for rows of this shape, `[batch, positions]` or `[batch · positions]`; None if none fits.

        Args:
            shape: of the rows.
            device: where it is needed; None for where it is.
        """
        fitting = self._fitting(shape, device)
        if len(fitting) < 2:
            return next(iter(fitting), None)
        return torch.stack(fitting).any(0)

    def live_rows(self, shape: torch.Size) -> int | None:
        """How many rows of this shape the mask calls live; None if none fits, or if counting would wait for a device."""
        fitting = self._fitting(shape, None)
        if not fitting or not all(map(has_values, fitting)):
            return None
        return int(torch.stack(fitting).any(0).sum())

    def stream(self, shape: torch.Size, usual: Stream) -> Stream | None:
        """The sequence that rows of this shape run along, by the tokens; `usual` where both fit, None where none does."""
        found = [stream for stream, tokens in self.tokens.items() if _fits(tokens, shape)]
        return usual if len(found) > 1 else found[0] if found else None

    @property
    def tokens(self) -> dict[Stream, Tensor]:
        """Tokens of the outermost call that has any."""
        return next((frame.tokens for frame in self._seen if frame.tokens), {})

    def unflattened(self, x: Tensor) -> Tensor:
        """`x [batch · positions, d]` as `[batch, positions, d]`, if there are masks or tokens of as many rows."""
        if x.ndim != 2:
            return x
        like = (t for frame in [*self._given, *self._seen] for t in (*frame.masks, *frame.tokens.values()))
        shape = next((known.shape for known in like if known.numel() == len(x)), None)
        return x if shape is None else x.reshape(*shape, x.shape[-1])

    def generator(self, layer: str, device: torch.device) -> torch.Generator:
        """Source of the random numbers of a layer's next call."""
        return self._draws.generator(layer, device)

    def forget_calls(self) -> None:
        """Begin again, for the recomputation: what was shared is let go, and calls are counted from the first."""
        self.shared.clear()
        self._draws.forget_calls()

    def _with_what_is_known(self, mask: Tensor, argument: Any) -> Tensor:
        """The mask of an argument that the last call with it has made one of too, which may have seen labels besides."""
        for frame in reversed(self._seen) if argument is not None else ():
            for known, theirs in zip(frame.masks, frame.arguments, strict=False):
                if theirs is argument and known.shape == mask.shape:
                    return mask | known
        return mask

    def _fitting(self, shape: torch.Size, device: torch.device | None) -> list[Tensor]:
        """Masks of these rows, all of which count (see the class)."""
        fitting: list[Tensor] = []
        for frame in self._candidates():
            there = [mask if device is None else moved(mask, device) for mask in frame.masks if _fits(mask, shape)]
            fitting += [mask.reshape(shape) for mask in there if mask is not None]
            if fitting and not frame.open:
                break
        return fitting

    def _candidates(self) -> list[Frame]:
        """Masks in the order in which they are tried: by hand, of calls under way from the inside out, of all calls."""
        everything = Frame([mask for frame in self._seen for mask in frame.masks])
        return [*self._given, *reversed(self._calls), everything]


def _fits(rows: Tensor, shape: torch.Size) -> bool:
    return rows.shape == shape or (len(shape) == 1 and rows.numel() == shape[0])
