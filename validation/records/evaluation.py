"""Metrics of a fine-tuned model as data."""

from __future__ import annotations

from wtacrs.validation.records.base import Record, Stamp


class Evaluation(Record):
    """What a model of a folder scores on the dev examples of a task; `majority` as in `TrainingResult`."""

    stamp: Stamp
    task: str
    model: str
    dev_size: int
    majority: float
    metrics: dict[str, float]
