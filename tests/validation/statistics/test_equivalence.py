"""Equivalence to exact training: by hand, calibrated at the margin, with power inside it."""

from __future__ import annotations

import math
from statistics import fmean, stdev

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from support.false_alarms import share

from wtacrs.estimators import InputError
from wtacrs.validation.statistics.equivalence import (
    PooledStd,
    adjusted,
    paired_equivalence,
    pooled_std,
    power,
    seeds_needed,
)

LEVEL = share("equivalence", 3)
VALUES = st.lists(st.integers(0, 1000), min_size=2, max_size=8)


def shifted(shift: float, seeds: int, runs: int, std: float = 0.01) -> list:
    """Normal differences around a shift."""
    generator = torch.Generator().manual_seed(11)
    noise = shift + std * torch.randn(runs, seeds, dtype=torch.float64, generator=generator)
    return [paired_equivalence(row, [0.0] * seeds, margin=0.01) for row in noise.tolist()]


@given(VALUES, st.floats(0.001, 0.2))
def test_it_is_the_interval_inside_the_margins(values: list[int], margin: float) -> None:
    metric = [v / 1000 for v in values]
    found = paired_equivalence(metric, [0.5] * len(metric), margin=margin)
    inside = -margin < found.low and found.high < margin
    if not math.isclose(abs(found.low), margin) and not math.isclose(abs(found.high), margin):
        assert (found.verdict == "equivalent") == inside
    differences = [m - 0.5 for m in metric]
    assert found.difference == pytest.approx(fmean(differences), abs=1e-12)
    if stdev(differences) > 1e-9:
        p = stats.ttest_1samp(differences, 0.0).pvalue
        assert found.different == pytest.approx(p, abs=1e-9)


def test_by_hand() -> None:
    found = paired_equivalence([0.91, 0.90, 0.92], [0.90, 0.90, 0.90], margin=0.05)
    assert found.difference == pytest.approx(0.01)
    assert found.error == pytest.approx(0.01 / math.sqrt(3))
    assert found.equivalent == pytest.approx(stats.t.sf(0.04 / found.error, 2))
    assert found.verdict == "equivalent"
    worse = paired_equivalence([0.5, 0.51, 0.5], [0.9, 0.9, 0.9], margin=0.01)
    assert worse.verdict == "worse"
    assert paired_equivalence([0.9, 0.5], [0.5, 0.9], margin=0.01).verdict == "undecided"
    same = paired_equivalence([0.7, 0.7], [0.7, 0.7], margin=0.01)
    assert (same.verdict, same.equivalent, same.different) == ("equivalent", 0.0, 1.0)


def test_at_the_margin_it_errs_as_often_as_it_says() -> None:
    """The p-value is uniform where the true difference is the margin (few seeds and little scatter: one side counts)."""
    p = [one.equivalent for one in shifted(0.01, 6, 2000, std=0.002)]
    assert stats.kstest(p, "uniform").pvalue > LEVEL


def test_it_has_power_inside_the_margin() -> None:
    """20 seeds, standard deviation half a point, margin one point: power above 99.9 %."""
    found = shifted(0.0, 20, 500, std=0.005)
    accepted = sum(one.verdict == "equivalent" for one in found)
    assert stats.binomtest(accepted, 500, 0.999, alternative="less").pvalue > LEVEL
    three = shifted(0.0, 3, 500, std=0.02)
    assert sum(one.verdict == "equivalent" for one in three) < 50  # three noisy seeds decide nothing


def test_many_comparisons_are_corrected() -> None:
    found = shifted(0.0, 4, 5, std=0.004)
    corrected = adjusted(found)
    order = sorted(range(5), key=lambda i: found[i].equivalent)
    assert corrected[order[0]].equivalent == pytest.approx(min(5 * found[order[0]].equivalent, 1.0))
    assert all(c.equivalent >= f.equivalent for c, f in zip(corrected, found, strict=True))
    assert adjusted([]) == []


def test_misuse_names_the_argument() -> None:
    with pytest.raises(InputError, match="at least two pairs, got 1 and 1"):
        paired_equivalence([0.5], [0.5], margin=0.01)
    with pytest.raises(InputError, match="margin=0"):
        paired_equivalence([0.5, 0.5], [0.5, 0.5], margin=0.0)
    with pytest.raises(InputError, match=r"level=0\.5"):
        paired_equivalence([0.5, 0.5], [0.5, 0.5], margin=0.1, level=0.5)


@pytest.mark.parametrize(("seeds", "error"), [(2, 0.4), (3, 0.2), (3, 1.0), (10, 0.9), (40, 3.0)])
def test_the_power_is_the_integral_over_the_estimated_deviation(seeds: int, error: float) -> None:
    """By quadrature of the joint density, and 0 only where the interval can never fit."""

    def shown(s: float) -> float:
        half = stats.t.isf(0.05, seeds - 1) * s / seeds**0.5
        inside = max(1.0 - half, 0.0) / (error / seeds**0.5)
        density = stats.chi.pdf(s / error * (seeds - 1) ** 0.5, seeds - 1) * (seeds - 1) ** 0.5 / error
        return (2 * stats.norm.cdf(inside) - 1) * density

    largest = seeds**0.5 / stats.t.isf(0.05, seeds - 1)
    expected = integrate.quad(shown, 0.0, largest, epsabs=1e-10, limit=200)[0]
    assert power(seeds, error, margin=1.0) == pytest.approx(expected, abs=2e-3)


def test_seeds_needed_are_the_fewest() -> None:
    needed = seeds_needed(1.3, margin=1.0, level=0.01)
    assert power(needed, 1.3, margin=1.0, level=0.01) >= 0.8 > power(needed - 1, 1.3, margin=1.0, level=0.01)
    assert seeds_needed(0.0, margin=1.0) == 2
    assert seeds_needed(1e3, margin=1.0) is None
    assert seeds_needed(2.6, margin=2.0, level=0.01) == needed


def test_a_pooled_std_of_two_methods_is_that_of_their_differences() -> None:
    one, two = [0.71, 0.74, 0.70, 0.78], [0.70, 0.75, 0.73, 0.74]
    found = pooled_std([one, two])
    assert found.freedom == 3
    assert found.deviation == pytest.approx(stdev([a - b for a, b in zip(one, two, strict=True)]))


def test_effects_of_methods_and_seeds_do_not_count() -> None:
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    moved = noise + torch.tensor([[0.0], [1.0], [5.0], [-2.0]]) + torch.tensor([0.3, 7.0, -1.0])
    assert pooled_std(moved.tolist()).deviation == pytest.approx(pooled_std(noise.tolist()).deviation)
    assert pooled_std(moved.tolist()).freedom == 6
    flat = pooled_std([[0.5, 0.6], [0.7, 0.8]])
    assert flat.deviation == pytest.approx(0.0, abs=1e-12)


def test_pooled_p_values_are_uniform_at_the_margin() -> None:
    """Ten methods by three seeds, equal variances: one method lies the margin below exact, in 2,000 experiments."""
    generator = torch.Generator().manual_seed(13)
    tables = 0.002 * torch.randn(2000, 10, 3, dtype=torch.float64, generator=generator)
    tables += 0.01 * torch.randn(2000, 1, 3, dtype=torch.float64, generator=generator)
    tables[:, 1] -= 0.01
    p = [
        paired_equivalence(table[1], table[0], margin=0.01, std=pooled_std(table)).equivalent
        for table in tables.tolist()
    ]
    assert stats.kstest(p, "uniform").pvalue > LEVEL


def test_a_std_from_elsewhere_sets_interval_and_freedom() -> None:
    found = paired_equivalence([0.8, 0.9], [0.8, 0.8], margin=0.1, std=PooledStd(0.02, 18))
    assert found.freedom == 18
    assert found.error == pytest.approx(0.02 / math.sqrt(2))
    assert found.high == pytest.approx(0.05 + stats.t.isf(0.05, 18) * found.error)
    assert power(3, 0.5, margin=1.0, methods=10) > power(3, 0.5, margin=1.0)


@pytest.mark.parametrize("runs", [[[0.1, 0.2]], [[0.1], [0.2]], [[0.1, 0.2], [0.1]]])
def test_a_std_needs_methods_and_seeds(runs: list[list[float]]) -> None:
    with pytest.raises(InputError, match="at least two methods"):
        pooled_std(runs)
