"""Time and memory of a layer of full size, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from wtacrs.validation.records.base import Record, Result, register_result


class ScaleRow(Record):
    """One estimator on one layer: how its moments were found, wall-clock seconds, and the peak of memory in bytes.

    `device_bytes` is the peak of what torch allocated on a CUDA device, None on the CPU.
    """

    estimator: str
    n: int
    d: int
    m: int
    dtype: str
    method: Literal["closed form", "monte carlo"]
    draws: int | None
    variance: float
    seconds: float
    process_bytes: int
    device_bytes: int | None


@register_result
class ScaleResult(Result):
    """Time and memory of every estimator on a layer of full size."""

    kind: Literal["scale"] = "scale"
    rows: Sequence[ScaleRow]
