"""What right and wrong masks do to the mean of the gradient of many architectures, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from wtacrs.validation.records.base import Record, Result, register_result

Condition = Literal["right", "random", "opposite", "none", "unrelated"]
"""The masks that a model is given: right ones, random ones, the opposite convention, none, or right ones while random
masks are stated by hand, so that the loss knows nothing of the masks that the layers go by."""
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
PaddingSide = Literal["right", "left"]
SIDES: tuple[PaddingSide, ...] = get_args(PaddingSide)


class MaskRow(Record):
    """One architecture under one mask.

    Attributes:
        architecture: its short name; `model` is the class.
        condition: what masks it is given.
        side: where padding stands.
        failed: why there is nothing, as where the stock model has no finite loss under such a mask; numbers are 0 then.
        reads_padding: whether the loss changes with the embeddings of pad tokens, found by changing them.
        layers: converted layers with a gradient.
        masked: of these, layers in which a mask calls rows padding.
        kept: of these, layers that still use it after one step.
        share: largest share of ‖dY‖² in rows called padding.
        bias: largest ‖EĜ − G‖/‖G‖ over layers in the first step; `bias_after` in the second.
        score_zero: ⟨EĜ, G⟩/‖G‖² of the whole model if rows called padding were never drawn, 1 where it is 0;
            `score_zero_layer` is the least of it over layers.
    """

    architecture: str
    model: str
    condition: Condition
    side: PaddingSide
    failed: str = ""
    reads_padding: bool = False
    layers: int = 0
    masked: int = 0
    kept: int = 0
    share: float = 0.0
    bias: float = 0.0
    bias_after: float = 0.0
    score_zero: float = 0.0
    score_zero_layer: float = 0.0


@register_result
class MasksResult(Result):
    """Every architecture under every mask."""

    kind: Literal["masks"] = "masks"
    estimator: str
    mask_floor: float
    rows: Sequence[MaskRow]

    @property
    def architectures(self) -> list[str]:
        """Their names, in order."""
        return list(dict.fromkeys(row.architecture for row in self.rows))

    @property
    def ran(self) -> list[MaskRow]:
        """Rows with numbers."""
        return [row for row in self.rows if not row.failed]

    @property
    def largest_bias(self) -> float:
        """Over all rows and both steps."""
        return max((max(row.bias, row.bias_after) for row in self.ran), default=0.0)


def masks_sentence(result: MasksResult) -> str:
    """What the rows say together."""
    wrong = [row for row in result.ran if row.masked]
    least = min((row.score_zero for row in wrong), default=1.0)
    return (
        f"{len({row.architecture for row in result.ran})} architectures, {len(result.ran)} cases: the mean of every "
        f"layer's estimate is the exact gradient to {result.largest_bias:.1g} of its norm, whatever the mask says. "
        f"With a score of 0 for rows called padding, the mean would be as little as {least:.2f} of the gradient"
    )
