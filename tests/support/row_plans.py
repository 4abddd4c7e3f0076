"""Row designs, their slots and their coefficients."""

from __future__ import annotations

import torch
from torch import Tensor

from wtacrs.estimators import (
    RowEstimator,
    RowPlan,
    make,
    sampling_scores,
)


def row_estimator(spec: str, budget: float) -> RowEstimator:
    estimator = make(spec.format(budget=budget))
    assert isinstance(estimator, RowEstimator)
    return estimator


def coefficients(plan: RowPlan, n: int) -> list[float]:
    return torch.zeros(n, dtype=torch.float64).index_add(0, plan.indices, plan.weights).tolist()


def checked(scores: list[float]) -> Tensor:
    values = torch.tensor(scores, dtype=torch.float64)
    return sampling_scores(values.new_zeros(len(scores), 1), values)
