"""What variance costs: planted slopes, least squares by hand, coverage, and thresholds that move as they should."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.false_alarms import share

from wtacrs.estimators import InputError
from wtacrs.validation.records.budgets import BudgetLimit
from wtacrs.validation.records.noise import NoiseRatio
from wtacrs.validation.statistics.variance_cost import (
    falls_to,
    noise_threshold,
    slopes_by_seed,
    variance_cost,
)

BUDGETS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
VARIANCES = {k: 1 / k - 1 for k in BUDGETS}
LEVELS = (0.9, 0.88, 0.93, 0.85)


def planted(slope: float, levels=LEVELS) -> tuple[list[float], dict[float, list[float]]]:
    return list(levels), {k: [level - slope * v for level in levels] for k, v in VARIANCES.items()}


def place(limit: BudgetLimit) -> float:
    """Where a limit lies, beyond the ends too."""
    return {"below": 0.0, "at": float(limit.budget), "above": math.inf}[limit.side]


def test_a_planted_slope_is_found_exactly() -> None:
    exact, runs = planted(0.002)
    found = variance_cost(exact, runs, VARIANCES, margin=0.01)
    assert (found.slope, found.seeds, found.margin) == (pytest.approx(0.002, rel=1e-9), 4, 0.01)
    assert found.error == pytest.approx(0.0, abs=1e-15)
    # 0.002 (1/k − 1) = 0.01 at k = 1/6; between 0.15 and 0.2 a line of logarithms is near it
    assert found.threshold is not None
    assert found.threshold.value.budget == pytest.approx(1 / 6, rel=0.002)
    assert found.harmless.budget == pytest.approx(found.threshold.value.budget, rel=1e-6)
    assert "the budget at which the loss comes to 0.01 is 0.166" in found.sentence


def test_slope_and_interval_are_those_of_least_squares_with_a_level_for_every_seed() -> None:
    rng = np.random.default_rng(5)
    exact = rng.normal(0.9, 0.02, 5).tolist()
    runs = {k: (np.array(exact) - 0.003 * VARIANCES[k] + rng.normal(0, 0.01, 5)).tolist() for k in BUDGETS}
    found = variance_cost(exact, runs, VARIANCES, margin=0.01)
    rows, target = [], []
    for v, values in [(0.0, exact), *((VARIANCES[k], runs[k]) for k in BUDGETS)]:
        for seed, value in enumerate(values):
            rows.append([-v, *(float(seed == s) for s in range(5))])
            target.append(value)
    beta, *_ = np.linalg.lstsq(np.array(rows), np.array(target), rcond=None)
    assert found.slope == pytest.approx(float(beta[0]), rel=1e-9)
    # and generalised least squares of the differences, which share the error of the exact run
    v = np.array(list(VARIANCES.values()))
    inverse = np.linalg.inv(np.eye(7) + 1.0)
    d = np.array([np.array(runs[k]) - np.array(exact) for k in BUDGETS])
    by_seed = -(v @ inverse @ d) / (v @ inverse @ v)
    assert slopes_by_seed(exact, runs, VARIANCES) == pytest.approx(by_seed, rel=1e-9)
    theirs = stats.ttest_1samp(by_seed, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))


@pytest.mark.parametrize("growth", [1.0, 3.0])
def test_the_interval_holds_the_slope_as_often_as_it_says(growth: float) -> None:
    """Runs of one seed share its level and its exact run; their scatter may grow where variance is largest."""
    rng = np.random.default_rng(7)
    spread = np.array([1.0, growth, *[1.0] * 6]) * 0.01
    held, cases = 0, 1000
    for _ in range(cases):
        exact, *rows = 0.9 + rng.normal(0, 0.05, 4) + spread[:, None] * rng.normal(size=(8, 4))
        runs = {k: (row - 0.002 * VARIANCES[k]).tolist() for k, row in zip(BUDGETS, rows, strict=True)}
        found = variance_cost(exact.tolist(), runs, VARIANCES, margin=0.01, level=0.9)
        held += found.low <= 0.002 <= found.high
    assert stats.binomtest(held, cases, 0.9).pvalue > share("variance cost: coverage", 2)


def test_without_a_loss_there_is_no_threshold() -> None:
    rng = np.random.default_rng(1)
    exact, runs = planted(0.0)
    noisy = {k: [y + rng.normal(0, 0.003) for y in values] for k, values in runs.items()}
    found = variance_cost(exact, noisy, VARIANCES, margin=0.01)
    assert found.low < 0 < found.high
    assert found.threshold is None
    assert found.harmless == falls_to(VARIANCES, 0.01 / found.high)
    assert "no loss is seen" in found.sentence
    better = variance_cost(*planted(-0.01), VARIANCES, margin=0.01)
    assert (better.threshold, str(better.harmless)) == (None, "below 0.05")
    assert "below 0.01 at every budget" in better.sentence


def test_beyond_the_budgets_it_is_said_in_words() -> None:
    low = variance_cost(*planted(1e-5), VARIANCES, margin=0.01)
    high = variance_cost(*planted(0.1), VARIANCES, margin=0.01)
    assert low.threshold is not None
    assert high.threshold is not None
    assert (str(low.threshold.value), str(high.threshold.value)) == ("below 0.05", "above 0.5")


def test_a_power_of_the_budget_is_interpolated_exactly() -> None:
    curve = {k: 3.0 * k**-1.7 for k in BUDGETS}
    for k in (0.06, 0.11, 0.25, 0.49):
        assert falls_to(curve, 3.0 * k**-1.7).budget == pytest.approx(k, rel=1e-12)
    assert falls_to({8: 4.0, 32: 1.0}, 2.0).budget == pytest.approx(16.0)
    assert falls_to({0.5: 1.0, 1.0: 0.0}, 0.1).budget == 1.0  # where nothing is known between, the safe end
    rising = {0.1: 1.0, 0.2: 0.1, 0.3: 0.5}
    assert falls_to(rising, 0.5).budget == pytest.approx(0.1 * 2 ** math.log10(2))
    assert falls_to(rising, 0.3).side == "above"  # the last budget is above it


@settings(max_examples=60)
@given(
    st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=7),
    st.floats(1e-3, 1e3),
    st.floats(1.0, 100.0),
)
def test_more_variance_is_allowed_at_smaller_budgets(values: list[float], level: float, factor: float) -> None:
    curve = dict(zip(BUDGETS, values, strict=False))
    low, high = place(falls_to(curve, level * factor)), place(falls_to(curve, level))
    assert low <= high * (1 + 1e-9)
    scaled = {k: v * factor for k, v in curve.items()}
    assert place(falls_to(scaled, level)) >= high * (1 - 1e-9)


@settings(max_examples=40)
@given(st.floats(1e-4, 0.05), st.floats(1.0, 5.0), st.integers(0, 100))
def test_the_interval_of_the_threshold_holds_it_and_moves_with_the_margin(
    margin: float, factor: float, draw: int
) -> None:
    rng = np.random.default_rng(draw)
    exact, runs = planted(0.002)
    noisy = {k: [y + rng.normal(0, 0.001) for y in values] for k, values in runs.items()}
    found = variance_cost(exact, noisy, VARIANCES, margin=margin).threshold
    wider = variance_cost(exact, noisy, VARIANCES, margin=margin * factor).threshold
    assert found is not None
    assert wider is not None
    assert place(found.low) <= place(found.value) <= place(found.high)
    assert place(wider.value) <= place(found.value) * (1 + 1e-9)


def test_where_noise_is_that_of_the_minibatch() -> None:
    ratios = {k: NoiseRatio(value=0.2 / k, low=0.1 / k, high=0.4 / k) for k in BUDGETS}
    found = noise_threshold(ratios)
    assert [round(limit.budget, 6) for limit in (found.low, found.value, found.high)] == [0.1, 0.2, 0.4]
    assert str(found) == "0.2 [0.1 … 0.4]"
    unknown = noise_threshold({k: NoiseRatio(value=0.2 / k, low=None, high=None) for k in BUDGETS})
    assert (unknown.low, unknown.high, str(unknown)) == (None, None, "0.2")


def test_bad_input() -> None:
    exact, runs = planted(0.002)
    for changes, told in (
        ({"margin": 0.0}, "margin"),
        ({"level": 1.0}, "level"),
        ({"variances": {0.05: 1.0}}, "none for budget 0.1"),
        ({"variances": dict.fromkeys(BUDGETS, 0.0)}, "not all 0"),
        ({"variances": VARIANCES | {0.05: math.nan}}, "finite"),
        ({"exact": [0.9]}, "as many runs"),
        ({"exact": [0.9], "estimated": {0.1: [0.8]}}, "two seeds"),
    ):
        given_ = {"exact": exact, "estimated": runs, "variances": VARIANCES, "margin": 0.01} | changes
        with pytest.raises(InputError, match=told):
            variance_cost(**given_)
    with pytest.raises(InputError, match="positive"):
        falls_to({}, 1.0)
