"""Pre-training runs as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from wtacrs.validation.records.base import Record, Result, register_result


class PretrainingPoint(Record):
    """Mean training loss, in nats per target token, over the steps since the point before."""

    step: int
    train_loss: float


@register_result
class PretrainingResult(Result):
    """One run of span corruption; losses are nats per target token, on validation before and after."""

    kind: Literal["pretraining"] = "pretraining"
    size: str
    estimator: str
    parameters: int
    steps: int
    tokens: int
    valid_before: float
    valid_after: float
    seconds: float
    history: Sequence[PretrainingPoint]
