"""Numbers of a layer: at their ends, whatever the scale, and the rows that are needed by brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wtacrs.estimators import InputError, joint_norms
from wtacrs.estimators.rows.inclusion import inclusion
from wtacrs.validation.layers.compressibility import compressibility


def problem(seed: int, n: int, skew: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    x = x * torch.rand(n, 1, generator=generator, dtype=torch.float64) ** skew
    return x, torch.randn(n, 3, generator=generator, dtype=torch.float64)


def test_rows_of_one_size_and_one_row_alone() -> None:
    same = compressibility(torch.ones(40, 3), torch.ones(40, 2))
    assert (same.n, same.effective, same.coherence) == (40, pytest.approx(1.0), pytest.approx(1.0))
    assert same.tail == pytest.approx(0.9)
    x, dy = torch.zeros(40, 3), torch.ones(40, 2)
    x[7] = 2.0
    alone = compressibility(x, dy)
    assert (alone.n, alone.effective, alone.rows_needed) == (1, 1.0, 1.0)


@settings(max_examples=40)
@given(
    st.integers(0, 10_000), st.integers(2, 25), st.sampled_from([0.0, 2.0, 9.0]), st.sampled_from([0.1, 1.0, 5.0])
)
def test_rows_needed_are_the_fewest(seed: int, n: int, skew: float, variance: float) -> None:
    x, dy = problem(seed, n, skew)
    found = compressibility(x, dy, variance=variance)
    w = joint_norms(x, dy)
    allowed = variance * float((dy.T @ x).square().sum())

    def cost(rows: int) -> float:
        p = inclusion(w, rows).probabilities
        return float(((1 / p - 1) * w.square()).sum())

    fewest = next(k for k in range(1, n + 1) if cost(k) <= allowed * (1 + 1e-12) + 1e-300)
    assert round(found.rows_needed * n) == fewest
    assert 1 / n <= found.effective <= 1 + 1e-12
    assert 0 <= found.tail <= 1
    assert 0 <= found.coherence <= 1 + 1e-12


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_scale_and_padding_change_nothing(scale: float) -> None:
    x, dy = problem(1, 30, 2.0)
    plain = compressibility(x, dy)
    padded = compressibility(torch.cat([scale * x, torch.randn(11, 5)]), torch.cat([dy, torch.zeros(11, 3)]))
    assert padded == pytest.approx(plain)


@pytest.mark.usefixtures("unchecked")
def test_what_it_refuses() -> None:
    x, dy = problem(1, 5)
    with pytest.raises(InputError, match="variance"):
        compressibility(x, dy, variance=0.0)
    with pytest.raises(InputError, match="zero"):
        compressibility(x, torch.zeros_like(dy))
