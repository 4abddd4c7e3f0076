"""What a context knows of the memory that scores are made from (see `wtacrs.integration.score_memory`)."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

NOT_COMPILED = "scores from remembered gradient norms look into memory outside the graph"
"""Why torch.compile breaks the graph, or refuses with fullgraph=True; it traces layers that go by row norms."""


class ScoreMemory(Protocol):
    """A memory that registers itself as `ForwardContext.score_memory`.

    Attributes:
        ids: positions of the next batch's examples in their data set, `[batch]`, where they were stated by hand.
    """

    ids: Tensor | None
