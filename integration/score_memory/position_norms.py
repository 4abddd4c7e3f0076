"""Running averages of gradient norms by position in the sequence."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor

from wtacrs.integration.context.forward_pass import ForwardPass
from wtacrs.integration.context.streams import Stream
from wtacrs.integration.score_memory.gradient_norms import FLOOR
from wtacrs.integration.score_memory.running_norms import DECAY, RunningNorms
from wtacrs.validation.arguments import checked_integer


class PositionNorms(RunningNorms):
    """Average by the position of a token, padding left out; the last token, often a special one, has a place of its own.

    Args:
        longest: positions from this one on share an average.
        decay: as in `RunningNorms`.
        floor: share of the probability that is spread evenly.
    """

    kind: ClassVar[str] = "by-position"

    def __init__(self, longest: int = 512, *, decay: float = DECAY, floor: float = FLOOR) -> None:
        super().__init__(decay=decay, floor=floor)
        self._longest = checked_integer(longest, "longest", least=1)

    @property
    def keys(self) -> int:
        """One per position, and one for the last token."""
        return self._longest + 1

    def _places(
        self, current: ForwardPass, kind: str, stream: Stream | None, shape: torch.Size
    ) -> Int64[Tensor, " n"] | None:
        mask = current.mask(shape)
        if mask is None:
            return None
        position = mask.cumsum(1) - 1
        last = position == mask.sum(1, keepdim=True) - 1
        places = torch.where(last, self._longest, position.clamp(max=self._longest - 1))
        return torch.where(mask, places, -1).reshape(-1)
