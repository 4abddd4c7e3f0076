"""Fine-tuning runs as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import ClassVar, Literal

from pydantic import Field

from wtacrs.validation.records.base import Record, Result, register_result, with_lean
from wtacrs.validation.records.receipt import Receipt


class TrainingPoint(Record):
    """One evaluation: mean training loss since the last one, dev metrics, seconds of training so far."""

    step: int
    epoch: float
    train_loss: float | None
    dev: dict[str, float]
    seconds: float


class StepCost(Record):
    """What training steps cost: `seconds` of forward and backward passes, one per step that was timed.

    `kept_bytes` is what the whole model keeps for its backward pass, `peak_bytes` the most that is alive at once in both
    passes, gradients included, beside what was there before. They are None where they could not be measured.
    """

    seconds: Sequence[float]
    kept_bytes: int | None = None
    peak_bytes: int | None = None


@register_result
class TrainingResult(Result):
    """One fine-tuning run; `majority` is what predicting the most frequent training label scores on dev.

    `processes` trained together, each on its share of every batch. `converted` layers train by estimates.
    `lean` is what their neighbours kept less of, in the words of `LeanOptions`; None for stock neighbours.
    `masked_gradient` names the layers that used no mask any more in the end, with the share of ‖dY‖² that had been in
    rows called padding. `kept_bytes` is what the whole model keeps for its backward pass in the first forward pass of the
    training, of the first process; parameters, buffers and the batch are left out. `exact_bytes` is what the stock model
    would keep there, or with lean neighbours what stock linear layers would keep beside them; `receipt` is what was
    promised beside it. They are None where they could not be measured, and in files
    from before there were any. `step` is what the first steps cost, `baseline` what exact steps of the stock model cost
    on the same batches just before (with the same adapters, if any); None where they were not asked for.
    `skipped` steps had no update, since a gradient was not finite in fp16.
    """

    table_series: ClassVar[Mapping[str, Sequence[str]]] = {"masked_gradient": ("masked_gradient",)}
    table_derived: ClassVar[Sequence[str]] = ("method",)

    kind: Literal["training"] = "training"
    task: str
    model: str
    estimator: str
    lean: str | None = None
    parameters: int
    trainable: int | None = None
    converted: int
    train_size: int
    dev_size: int
    metric: str
    majority: float
    best: float
    final: float
    history: Sequence[TrainingPoint]
    processes: int = 1
    masked_gradient: dict[str, float] = Field(default_factory=dict)
    kept_bytes: int | None = None
    exact_bytes: int | None = None
    receipt: Receipt | None = None
    step: StepCost | None = None
    baseline: StepCost | None = None
    skipped: int = 0

    @property
    def headline(self) -> str:
        """Model, task, how dW was found, and the dev metric."""
        best = f"{self.metric} {self.final:.4f} in the end, {self.best:.4f} at best"
        return f"{self.model} on {self.task}, dW by {self.method}: {best}"

    def last(self, evaluations: int, metric: str | None = None) -> float:
        """Mean of the last evaluations of a dev metric, the main one by default."""
        if metric is None and evaluations == 1:
            return self.final
        values = [point.dev[metric or self.metric] for point in self.history if point.step > 0]
        return fmean(values[-evaluations:])

    @property
    def time_ratios(self) -> list[float]:
        """Time of a step over that of the exact step on the same batch, one per step that both have."""
        if self.step is None or self.baseline is None:
            return []
        pairs = zip(self.step.seconds, self.baseline.seconds, strict=False)
        return [mine / exact for mine, exact in pairs if exact > 0]

    @property
    def method(self) -> str:
        """Estimator and lean neighbours, as they are shown."""
        return with_lean(self.estimator, self.lean)
