"""Inclusion probabilities proportional to size: the definition, at every edge."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import naive
from support.row_plans import checked
from support.strategies import score_lists

from wtacrs.estimators.rows.inclusion import inclusion


@given(score_lists(), st.data())
def test_they_sum_to_k_and_are_proportional(scores: list[float], data: st.DataObject) -> None:
    s = checked(scores)
    k = data.draw(st.integers(0, len(scores)))
    found = inclusion(s, k)
    p, positive = found.probabilities, int((s > 0).sum())
    assert float(p.sum()) == pytest.approx(min(k, positive), rel=1e-12)
    assert ((p >= 0) & (p <= 1)).all()
    assert not p[s == 0].any()
    ratio = (p / s)[found.tail]
    if k > 0 and ratio.numel():
        assert float(ratio.max()) == pytest.approx(float(ratio.min()), rel=1e-12)
        assert bool((s[~found.tail & (s > 0)] * ratio.max() >= 1 - 1e-12).all())


@given(score_lists(max_rows=30), st.data())
def test_equal_to_the_twin(scores: list[float], data: st.DataObject) -> None:
    s = checked(scores)
    k = data.draw(st.integers(1, len(scores)))
    twin, _ = naive.inclusion(s.tolist(), k)
    assert inclusion(s, k).probabilities.tolist() == pytest.approx(twin, rel=1e-9)


def test_ties_share_alike_and_few_positive_rows_are_certain() -> None:
    assert inclusion(checked([1.0, 1.0, 1.0, 1.0]), 3).probabilities.tolist() == [0.75] * 4
    assert inclusion(checked([9.0, 1.0, 1.0, 0.0]), 2).probabilities.tolist() == [1.0, 0.5, 0.5, 0.0]
    assert inclusion(checked([2.0, 0.0, 1.0, 0.0]), 3).probabilities.tolist() == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("power", [0.0, 1.0, 4.0, -1.5])
def test_a_million_rows(power: float, generator: torch.Generator) -> None:
    """Scores of single precision, summed in double: k to twelve digits."""
    s = torch.rand(1_000_000, generator=generator).clamp(min=1e-6).pow(power)
    p = inclusion(checked(s.tolist()), 300_000).probabilities
    assert float(p.sum()) == pytest.approx(300_000, rel=1e-12)
