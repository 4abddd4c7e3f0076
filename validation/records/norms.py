"""Gradient norms of one layer over training, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from wtacrs.validation.records.base import Record, Result, register_result


class NormPoint(Record):
    """One step of one layer: Frobenius norms of the weight gradient, before clipping.

    `used` is the norm of what the optimizer got, `exact` that of dYᵀX on the same x and dy, and `expected`
    `√E‖Ĝ‖²` given them: `√(‖G‖² + Var)` of an unbiased estimator. It is None where the moments have no closed form.
    """

    step: int
    used: float
    exact: float
    expected: float | None


@register_result
class NormsResult(Result):
    """Gradient norms of one layer over training, with its dW estimated and, from the same start, exact.

    `final` and `final_exact` are the dev metrics at the end of the two runs.
    """

    kind: Literal["gradient norms"] = "gradient norms"
    task: str
    model: str
    layer: str
    estimator: str
    unbiased: bool
    metric: str
    final: float
    final_exact: float
    estimated: Sequence[NormPoint]
    exact: Sequence[NormPoint]
