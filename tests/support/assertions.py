"""What several test files require of an estimator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wtacrs.estimators import Estimator, joint_norms
from wtacrs.validation.enumeration.exact_moments import ExactMoments, enumerate_moments


def assert_closed_forms(estimator: Estimator, x: Tensor, dy: Tensor, scores: Tensor | None) -> ExactMoments:
    """Enumeration = closed form, relative to Σw (mean) and E‖Ĝ‖² (variance); the enumerated moments."""
    found = enumerate_moments(estimator, x, dy, scores=scores)
    assert found.probability == pytest.approx(1.0, abs=1e-12)
    size = float(joint_norms(x, dy).sum())
    assert float((found.mean - estimator.expectation(x, dy, scores=scores)).norm()) <= 1e-10 * size
    scale = found.variance + float(found.mean.square().sum())
    assert abs(found.variance - float(estimator.variance(x, dy, scores=scores))) <= 1e-10 * scale
    return found


def assert_never_waits(estimator: Estimator) -> None:
    """Neither verb lets the host wait for the CUDA device."""
    x, dy = torch.randn(4096, 64, device="cuda"), torch.randn(4096, 32, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        estimate = estimator.contract(estimator.compress(x, generator=generator), dy)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert estimate.shape == (32, 64)
