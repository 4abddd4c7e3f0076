"""Budgets, row norms and the checks of scores."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import DTYPES

from wtacrs.estimators import InputError, joint_norms, make, row_norms, rows_for, sampling_scores


@given(st.floats(1e-6, 1.0), st.integers(0, 10**6))
def test_a_fraction_keeps_at_least_one_row_and_never_more_than_it_says(budget: float, n: int) -> None:
    k = rows_for(budget, n)
    assert 0 <= k <= n
    assert k >= min(1, n)
    if k > 1:
        assert k <= budget * n + 1e-6


@given(st.integers(1, 99), st.integers(1, 1000))
def test_whole_percentages_are_met_exactly(percent: int, hundreds: int) -> None:
    assert rows_for(percent / 100, 100 * hundreds) == percent * hundreds


def test_a_number_of_rows_is_capped() -> None:
    assert [rows_for(7, n) for n in (0, 1, 6, 7, 100)] == [0, 1, 6, 7, 7]


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(dtype, scale) for dtype in DTYPES for scale in (1.0, 1e-3, 6e4)]
    + [(dtype, scale) for dtype in DTYPES[:3] for scale in (1e-30, 1e30)]
    + [(torch.float64, 1e-200), (torch.float64, 1e200)],
)
def test_row_norms_are_right_at_every_scale_the_dtype_holds(dtype: torch.dtype, scale: float) -> None:
    x = (torch.tensor([[3.0, 4.0], [0.5, 0.0], [0.0, 0.0]], dtype=torch.float64) * scale / 8).to(dtype)
    expected = [math.hypot(*row) for row in x.double().tolist()]
    norms = row_norms(x)
    assert norms.dtype == torch.float64
    assert norms.tolist() == pytest.approx(expected, rel=1e-6, abs=0)


def test_joint_norms_are_the_frobenius_norms_of_the_pairs(generator: torch.Generator) -> None:
    x, dy = torch.randn(5, 3, generator=generator), torch.randn(5, 4, generator=generator)
    pairs = torch.einsum("nm,nd->nmd", dy, x).double()
    torch.testing.assert_close(joint_norms(x, dy), torch.linalg.matrix_norm(pairs), rtol=1e-6, atol=0)


def test_scores_are_scaled_to_one_and_all_zeros_become_equal() -> None:
    x = torch.zeros(3, 2)
    assert sampling_scores(x, torch.tensor([1.0, 4.0, 0.0])).tolist() == [0.25, 1.0, 0.0]
    assert sampling_scores(x, torch.zeros(3)).tolist() == [1.0, 1.0, 1.0]
    assert sampling_scores(x).tolist() == [1.0, 1.0, 1.0]
    assert sampling_scores(x, torch.tensor([True, False, True])).tolist() == [1.0, 0.0, 1.0]
    assert sampling_scores(torch.zeros(0, 2)).tolist() == []


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("scores", "fragment"),
    [
        (torch.tensor([1.0, math.nan, 1.0]), "finite and ≥ 0"),
        (torch.tensor([1.0, math.inf, 1.0]), "finite and ≥ 0"),
        (torch.tensor([1.0, -1e-9, 1.0]), "finite and ≥ 0"),
        (torch.ones(2), "must have shape [3]"),
        (torch.ones(3, 1), "must have shape [3]"),
        (torch.ones(3, dtype=torch.complex64), "must be real"),
        ([1.0, 1.0, 1.0], "must be a torch.Tensor"),
        (torch.ones(3, device="meta"), "device of x"),
    ],
)
def test_unusable_scores_are_refused(scores: object, fragment: str) -> None:
    for spec in ("exact", "topk(budget=2)", "crs(budget=2)", "wta_crs(budget=2)"):
        with pytest.raises(InputError) as caught:
            make(spec).compress(torch.ones(3, 2), scores=scores)  # type: ignore[arg-type]
        assert fragment in str(caught.value)


def test_a_nan_in_x_is_refused_where_it_would_choose_rows() -> None:
    x = torch.ones(3, 2)
    x[1, 0] = math.nan
    with pytest.raises(InputError, match="row norms of x must be finite"):
        make("crs(budget=2)").compress(x)
