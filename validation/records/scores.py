"""Variance under what training may sample rows by, over that under row norms, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from wtacrs.validation.records.base import Record, Result, register_result


class TrainingScoresRow(Record):
    """One kind of scores at one budget.

    Attributes:
        scores: the kind; "oracle" knows dY.
        budget: of the estimator.
        layers: how many were measured; those that share a sample count once, with the sum of their variances.
        variance: over that under row norms on the same batch: the median over layers, of each the median over batches.
        low: their first quartile.
        high: their third quartile.
    """

    scores: str
    budget: int | float
    layers: int
    variance: float
    low: float
    high: float


class ScoreMemoryBytes(Record):
    """What a kind of scores keeps: in its memory at the end, and of a batch until its backward pass, the largest."""

    scores: str
    memory: int
    rows: int


@register_result
class TrainingScoresResult(Result):
    """Kinds of scores on batches that training came to after they had learned from others.

    Attributes:
        task: trained on.
        model: its name.
        estimator: whose variance is measured, without its budget.
        after: steps of exact training at first.
        steps: steps that scores learned from; dW was estimated by row norms.
        batches: that were measured then, every one before anything was learned from it.
        rows: kinds and budgets.
        bytes: of every kind that remembers.
    """

    kind: Literal["training scores"] = "training scores"
    task: str
    model: str
    estimator: str
    after: int
    steps: int
    batches: int
    rows: Sequence[TrainingScoresRow]
    bytes: Sequence[ScoreMemoryBytes]
