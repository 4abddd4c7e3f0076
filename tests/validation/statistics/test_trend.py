"""The trend within blocks: against least squares with dummies, exact levels, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.false_alarms import share

from wtacrs.estimators import InputError
from wtacrs.validation.statistics.trend import trend

PLACES = [0.0, 0.5, 1.0, 1.6, 2.0]


def test_one_block_is_a_linear_regression() -> None:
    y = [1.0, 1.4, 2.9, 3.0, 4.4]
    found, theirs = trend(PLACES, y, [0] * 5), stats.linregress(PLACES, y)
    half = stats.t.ppf(0.975, 3) * theirs.stderr
    assert found == pytest.approx((theirs.slope, theirs.slope - half, theirs.slope + half, theirs.pvalue, 3))


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([1e-6, 1.0, 1e6]))
def test_blocks_are_least_squares_with_an_intercept_for_each(seed: int, blocks: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    x = generator.uniform(0, 3, 5 * blocks)
    names = np.repeat(np.arange(blocks), 5)
    y = scale * (generator.normal(0, 1, 5 * blocks) + 7.0 * names)
    columns = np.column_stack([x, *(names == block for block in range(blocks))]).astype(float)
    beta, rest, *_ = np.linalg.lstsq(columns, y, rcond=None)
    freedom = 5 * blocks - blocks - 1
    error = np.sqrt(rest[0] / freedom * np.linalg.inv(columns.T @ columns)[0, 0])
    found = trend(x.tolist(), y.tolist(), names.tolist(), level=0.9)
    assert found.freedom == freedom
    assert found.slope == pytest.approx(beta[0], rel=1e-6, abs=1e-9 * scale)
    assert found.high - found.slope == pytest.approx(stats.t.ppf(0.95, freedom) * error, rel=1e-6)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(beta[0]) / error, freedom), rel=1e-5)


def test_the_interval_holds_the_slope_as_often_as_it_says() -> None:
    """2,000 samples of 15: a binomial test that is exact, since errors are normal."""
    generator = np.random.default_rng(7)
    blocks = [b for b in range(3) for _ in PLACES]
    held = 0
    for _ in range(2_000):
        y = [0.8 * x + 5.0 * b + generator.normal() for b, x in zip(blocks, PLACES * 3, strict=True)]
        found = trend(PLACES * 3, y, blocks)
        held += found.low <= 0.8 <= found.high
    assert stats.binomtest(held, 2_000, 0.95).pvalue > share("trend: coverage")


def test_a_line_without_noise() -> None:
    found = trend(PLACES, [3.0 - 2.0 * x for x in PLACES], ["a"] * 5)
    assert found[:3] == pytest.approx((-2.0, -2.0, -2.0))
    assert found.p_value < 1e-12
    assert trend(PLACES, [3.0] * 5, ["a"] * 5).p_value == 1.0


@pytest.mark.parametrize(
    ("x", "y", "blocks", "told"),
    [
        ([1.0, 2.0], [1.0], [0, 0], "as many"),
        ([1.0, float("nan"), 2.0], [1.0, 1.0, 1.0], [0, 0, 0], "finite"),
        ([1.0, 2.0], [1.0, 1.0], [0, 0], "no degree of freedom"),
        ([1.0, 1.0, 2.0, 2.0], [1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1], "no trend"),
    ],
)
def test_what_it_refuses(x: list, y: list, blocks: list, told: str) -> None:
    with pytest.raises(InputError, match=told):
        trend(x, y, blocks)
    with pytest.raises(InputError, match="level"):
        trend(PLACES, PLACES, [0] * 5, level=1.0)
