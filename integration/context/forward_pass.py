"""One forward pass of a converted model: what its layers may know of it, again when a part of it is recomputed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wtacrs.integration.context.seed import LayerDraws
from wtacrs.integration.context.shared_inputs import SharedInputs
from wtacrs.integration.context.streams import Stream
from wtacrs.integration.parallel.processes import mixed_seed


class ForwardPass:
    """Masks, tokens and example ids of one forward pass, and the seed that its layers draw from (see `LayerDraws`).

    (Reentrant checkpointing runs the forward pass without gradients, where nothing is sampled.)

    Attributes:
        masks: `[batch, positions]` by stream, True for a row that may carry a gradient.
        seed: of the draws; None where torch's default generator is drawn from.
        tokens: `[batch, positions]` by stream: the token read, or the label wherever the target has one.
        ids: positions of the examples in their data set, `[batch]`, or None.
        known: False for layers that run outside any forward pass, of which nothing but the seed is known.
        notes: what a score memory keeps of this pass, by the memory.
        shared: inputs that several layers read.
    """

    def __init__(
        self,
        masks: dict[Stream, Tensor] | None = None,
        seed: int | None = None,
        *,
        tokens: dict[Stream, Tensor] | None = None,
        ids: Tensor | None = None,
        known: bool = True,
    ) -> None:
        self.masks, self.tokens = masks or {}, tokens or {}
        self.seed, self.ids, self.known = seed, ids, known
        self.notes: dict[Any, Any] = {}
        self.shared = SharedInputs()
        self._draws = None if seed is None else LayerDraws(seed)

    def mask(self, stream: Stream | None, shape: torch.Size) -> Tensor | None:
        """The mask `[batch, positions]` for rows of this shape, or None if there is none that fits."""
        mask = None if stream is None else self.masks.get(stream)
        return None if mask is None or mask.shape != shape else mask

    def unflattened(self, stream: Stream | None, x: Tensor) -> Tensor:
        """`x [batch · positions, d]` as `[batch, positions, d]`, if there are masks or tokens of as many rows."""
        known = [] if stream is None else [self.masks.get(stream), self.tokens.get(stream)]
        shapes = (like.shape for like in known if like is not None and x.ndim == 2 and like.numel() == len(x))
        shape = next(shapes, None)
        return x if shape is None else x.reshape(*shape, x.shape[-1])

    def generator(self, layer: str, device: torch.device) -> torch.Generator | None:
        """Source of the random numbers of a layer's next call; None for torch's default generator."""
        return None if self._draws is None else self._draws.generator(layer, device)

    def forget_calls(self) -> None:
        """Begin again, for the recomputation: what was shared is let go, and calls are counted from the first."""
        self.shared.clear()
        if self._draws is not None:
            self._draws.forget_calls()

    def together_with(self, other: ForwardPass) -> ForwardPass:
        """What is certain where it is not known of which of two passes a layer is recomputed: a seed, no masks."""
        return ForwardPass(seed=mixed_seed(self.seed, other.seed), known=False)
