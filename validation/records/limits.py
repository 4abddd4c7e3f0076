"""How far the memory of a step falls as models grow, as data: closed forms, and simulated steps beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from wtacrs.validation.records.base import Record, Result, counted, register_result

Grows = Literal["batch", "width", "depth", "length"]
"""What grows while all else stays: examples, d with D and F, blocks, tokens."""


class LimitCheck(Record):
    """The closed form beside the simulated step of the real code, in bytes."""

    table_derived: ClassVar[Sequence[str]] = ("kept_ratio", "peak_ratio")

    model: str
    way: str
    kept: float
    peak: float
    simulated_kept: int
    simulated_peak: int

    @property
    def kept_ratio(self) -> float:
        """Kept bytes of the closed form over the simulated ones."""
        return self.kept / self.simulated_kept

    @property
    def peak_ratio(self) -> float:
        """The same of the peak."""
        return self.peak / self.simulated_peak


class LimitCurve(Record):
    """The peak of a stock step over that of a way, while one size grows; `limit` is that of a model without end.

    `sizes` are those of what grows, `ratios` one for each; `limit` is None where the ratio grows without bound.
    """

    grows: Grows
    way: str
    sizes: Sequence[int]
    ratios: Sequence[float]
    limit: float | None


class LimitBatch(Record):
    """The largest batch that fits a device by the closed form, and the throughput that follows.

    `batch` is 0 where not one example fits. `time` is that of a step over a stock one at equal batch, as it was measured;
    None where it was not. `amortised` is what the larger batch gives beside stock's largest one, computed: the update of
    all weights is paid once per step. Both are None where stock has no batch to compare with.
    """

    table_derived: ClassVar[Sequence[str]] = ("throughput",)

    model: str
    memory: int
    way: str
    batch: int
    time: float | None = None
    amortised: float | None = None

    @property
    def throughput(self) -> float | None:
        """Examples per second over those of stock, each at its largest batch."""
        return None if self.time is None or self.amortised is None else self.amortised / self.time


@register_result
class LimitsResult(Result):
    """Closed forms of a T5's step: checked, followed as sizes grow, and turned round into the largest batch.

    `rows` is the share of rows that sampled layers keep; `base` the model that grows; `flops` and `bandwidth` (bytes per
    second) are of the device for which `amortised` is computed; `times_of` says where measured times come from.
    """

    main_table: ClassVar[str | None] = "batches"

    kind: Literal["limits"] = "limits"
    base: str
    rows: float
    batch_size: int
    length: int
    target_length: int
    flops: float
    bandwidth: float
    times_of: str | None = None
    checks: Sequence[LimitCheck]
    curves: Sequence[LimitCurve]
    batches: Sequence[LimitBatch]

    @property
    def headline(self) -> str:
        """How many closed forms were checked, and the largest deviation of a peak."""
        if not self.checks:
            return f"{counted(len(self.curves), 'curve')}, no check"
        worst = max(abs(check.peak_ratio - 1) for check in self.checks)
        return f"{counted(len(self.checks), 'check')}, peaks off by at most {worst:.1%}"
