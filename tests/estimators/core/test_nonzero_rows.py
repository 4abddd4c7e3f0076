"""Rows of dY that are zero: found exactly, left out of products without a change, and only where it pays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from wtacrs.estimators import make
from wtacrs.estimators.core.nonzero_rows import nonzero_rows

SPECS = (
    "wta_crs(budget=0.5)",
    "systematic(budget=0.5)",
    'dithered_rows(slots=2.0, product="float")',
    'dithered_rows(slots=0.7, product="float")',
)


def padded_gradient(seed: int, n: int, m: int, share: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    dy = torch.randn(n, m, generator=generator)
    return torch.where(torch.rand(n, 1, generator=generator) < share, 0.0, dy)


@given(st.integers(0, 2**31), st.integers(256, 400), st.sampled_from([256, 600]), st.floats(0.0, 1.0))
def test_every_row_that_is_left_out_is_zero(seed: int, n: int, m: int, share: float) -> None:
    dy = padded_gradient(seed, n, m, share)
    dy[:, 0] *= torch.arange(n) % 3 > 0  # a zero in front says nothing of the others
    found = nonzero_rows(dy, 512)
    expected = (dy != 0).any(1).nonzero().squeeze(1)
    zero = n - expected.shape[0]
    if found is None:
        assert zero <= n * (0.05 + 60 * (1 / m + 1 / 512))
    else:
        assert torch.equal(found, expected)


def test_nan_is_not_zero() -> None:
    dy = torch.zeros(300, 1024)
    dy[7, 3] = torch.nan
    found = nonzero_rows(dy, 1024)
    assert found is not None
    assert found.tolist() == [7]


@pytest.mark.parametrize("shape", [(100, 1024), (4096, 16), (4096, 0), (0, 8)])
def test_small_products_are_left_alone(shape: tuple[int, int]) -> None:
    assert nonzero_rows(torch.zeros(shape), 1024) is None


@pytest.mark.parametrize("spec", SPECS)
def test_the_estimate_is_the_same_at_fewer_operations(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1024, 256, generator=torch.Generator().manual_seed(0))
    dy = padded_gradient(1, 1024, 256, 0.7)
    estimator = make(spec)
    saved = estimator.compress(x, generator=torch.Generator().manual_seed(2))
    with FlopCounterMode(display=False) as few:
        found = estimator.contract(saved, dy)
    monkeypatch.setattr("wtacrs.estimators.core.nonzero_rows._LEAST", 10**9)
    with FlopCounterMode(display=False) as all_rows:
        expected = estimator.contract(saved, dy)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert few.get_total_flops() < 0.6 * all_rows.get_total_flops()


def test_rows_in_int8_keep_their_random_numbers() -> None:
    """What is left out changes neither the numbers of the other rows nor, by more than their rounding, the estimate."""
    x = torch.randn(1024, 256, generator=torch.Generator().manual_seed(0))
    dy = padded_gradient(1, 1024, 256, 0.7)
    exact = dy.T @ x
    estimator = make('dithered_rows(slots=2.0, product="int8")')
    found = estimator.contract(estimator.compress(x, generator=torch.Generator().manual_seed(2)), dy)
    assert float((found - exact).norm()) < 0.2 * float(exact.norm())
