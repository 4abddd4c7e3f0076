"""The comparison of two variances: level, coverage, planted ratios, exact answers where both are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.false_alarms import share

from wtacrs.estimators import CRS, InputError, NoClosedForm, make
from wtacrs.validation.problems import make_problem
from wtacrs.validation.statistics.variance_ratio import VarianceRatio, compare_variances, exact_ratio, paired_ratio

CALIBRATION = share("variance ratio: calibration", 8)
PLANTED = share("variance ratio: power and coverage", 16)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def squares(generator: np.random.Generator, pairs: int, common: float) -> tuple[np.ndarray, np.ndarray]:
    """Squares of normal numbers (mean 1, skewness 2.8) whose roots have this correlation."""
    first = generator.standard_normal(pairs)
    other = common * first + math.sqrt(1 - common**2) * generator.standard_normal(pairs)
    return first**2, other**2


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("common", [0.0, 0.9])
def test_p_values_are_uniform_and_intervals_cover(common):
    """At equal variances p is uniform; at 3:1 the interval covers 3 as often as it says and 1 seldom."""
    generator = np.random.default_rng(1)
    equal = [paired_ratio(*squares(generator, 100, common), 0.05, draws=200) for _ in range(500)]
    assert stats.kstest([r.p_value for r in equal], "uniform").pvalue > CALIBRATION
    rejected = sum(r.p_value <= 0.05 for r in equal)
    assert stats.binomtest(rejected, 500, 0.055, alternative="greater").pvalue > CALIBRATION
    unequal = []
    for _ in range(300):
        a, b = squares(generator, 100, common)
        unequal.append(paired_ratio(3 * a, b, 0.05, draws=200))
    missed = sum(not r.low <= 3.0 <= r.high for r in unequal)
    assert stats.binomtest(missed, 300, 0.06, alternative="greater").pvalue > PLANTED
    assert sum(r.low <= 1.0 <= r.high for r in unequal) < 100
    widths = np.array([r.high / r.low for r in unequal])
    assert np.median(widths) < 3.0


def test_pairing_narrows_the_interval():
    generator = np.random.default_rng(2)
    a, b = squares(generator, 500, 0.95)
    paired, apart = paired_ratio(a, b, 0.05, draws=1000), paired_ratio(a, np.roll(b, 1), 0.05, draws=1000)
    assert paired.ratio == pytest.approx(apart.ratio)
    assert paired.high - paired.low < 0.5 * (apart.high - apart.low)


def test_interval_leaves_out_one_exactly_when_the_test_rejects():
    generator = np.random.default_rng(3)
    for factor in (0.5, 0.8, 0.9, 1.0, 1.2, 2.0):
        a, b = squares(generator, 60, 0.3)
        found = paired_ratio(factor * a, b, 0.05, draws=120)
        assert found.low < found.ratio < found.high
        assert (found.p_value <= 0.05) == (not found.low <= 1.0 <= found.high)


def test_interval_is_fiellers_where_nothing_is_skewed():
    """Symmetric numbers: the ends are the roots of (ā − ρ b̄)² = c² Var(a − ρ b)/n."""
    base = np.array([-2.0, -1.0, 0.0, 1.0, 2.0] * 4)
    a, b = 10 + base, 20 + np.tile([-1.0, 1.0, 0.0, 1.0, -1.0], 4)
    found = paired_ratio(a, b, 0.05, draws=40)
    critical = stats.t.isf(0.025, 19) ** 2 / 20
    cov = np.cov(a, b)
    roots = np.roots(
        [
            b.mean() ** 2 - critical * cov[1, 1],
            -2 * (a.mean() * b.mean() - critical * cov[0, 1]),
            a.mean() ** 2 - critical * cov[0, 0],
        ]
    )
    assert (found.low, found.high) == pytest.approx(tuple(sorted(roots)), rel=0.02)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.floats(0.01, 100), st.floats(0.01, 100))
def test_units_do_not_matter(seed, scale, factor):
    a, b = squares(np.random.default_rng(seed), 30, 0.2)
    one, other = (paired_ratio(s * a, f * b, 0.1, draws=60) for s, f in ((1, 1), (scale, factor)))
    assert other.ratio * factor / scale == pytest.approx(one.ratio)
    assert other.low * factor / scale == pytest.approx(one.low, rel=1e-5)
    assert other.high * factor / scale == pytest.approx(one.high, rel=1e-5)


def test_an_unbounded_interval_says_so():
    b = np.array([0.0] * 50 + [1.0])
    found = paired_ratio(1 + 0.1 * np.sin(np.arange(51)), b, 0.001, draws=102)
    assert math.isinf(found.high)
    assert found.low < found.ratio
    assert found.p_value < 1e-3


class NoForm(CRS):
    """CRS without a closed form for its variance."""

    name = "no_form"
    factor = 1.0

    def contract(self, saved, dy):
        return super().contract(saved, dy) * self.factor

    def variance(self, x, dy, *, scores=None):
        raise NoClosedForm("unknown")


class Noisier(NoForm):
    """Its draws are about their own mean 1.5 times as far away."""

    name = "noisier"
    factor = 1.5


@pytest.fixture(scope="module")
def problem():
    return make_problem("gaussian", 20, 5, 4, generator=seeded(2))


def compared(a: str | CRS, b: str | CRS, problem, **options) -> VarianceRatio:
    arguments = {"draws": 300, "level": PLANTED, "generator": seeded(4)} | options
    return compare_variances(make(a), make(b), *problem, **arguments)


def test_known_variances_give_an_exact_ratio(problem):
    crs, wta = make("crs(budget=6)"), make("wta_crs(budget=6)")
    found = compared(wta, crs, problem)
    truth = float(wta.variance(*problem)) / float(crs.variance(*problem))
    assert (found.ratio, found.low, found.high) == (pytest.approx(truth),) * 3
    assert (found.method, found.draws) == ("closed form", 0)
    assert compared("crs(budget=6)", "crs(budget=6)", problem).p_value == 1.0
    assert compared("topk(budget=6)", crs, problem).ratio == 0.0
    assert compared(crs, "topk(budget=6)", problem).ratio == math.inf
    squared = compared("topk(budget=6)", crs, problem, quantity="mse")
    bias = make("topk(budget=6)").expectation(*problem) - problem.dy.T @ problem.x
    assert squared.ratio == pytest.approx(float(bias.square().sum() / crs.variance(*problem)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("quantity", ["variance", "mse"])
def test_the_true_ratio_lies_within_the_interval(problem, quantity):
    """Both sampled, one sampled, and a ratio that is known because both have a closed form in truth."""
    wta, crs = make("wta_crs(budget=6)"), make("crs(budget=6)")
    truth = float(wta.variance(*problem)) / float(crs.variance(*problem))
    for a, b in ((wta, NoForm(budget=6)), (NoForm(budget=6), wta)):
        found = compared(a, b, problem, quantity=quantity)
        assert found.method == "monte carlo"
        assert found.low <= (truth if a is wta else 1 / truth) <= found.high
        assert found.high / found.low < 2.5
    noisier = compared(Noisier(budget=6), NoForm(budget=6), problem)
    # common random numbers: the very same rows, so that the ratio is exact
    assert (noisier.low, noisier.high) == (pytest.approx(2.25, rel=1e-5),) * 2
    assert noisier.p_value <= PLANTED


def test_a_planted_ratio_is_seen(problem):
    """Half the budget is twice the variance, give or take the constant term."""
    truth = float(make("crs(budget=6)").variance(*problem)) / float(make("crs(budget=12)").variance(*problem))
    found = compared(NoForm(budget=6), NoForm(budget=12), problem)
    assert found.p_value <= PLANTED
    assert 1 < found.low <= truth <= found.high


def test_same_seed_same_answer(problem):
    first, again = (compared(NoForm(budget=6), "crs(budget=4)", problem) for _ in range(2))
    assert first == again
    assert first != compared(NoForm(budget=6), "crs(budget=4)", problem, generator=seeded(5))


def test_misuse_names_the_argument(problem, unchecked):
    for options, message in (
        ({"draws": 5}, "draws=5"),
        ({"level": 1.0}, "level=1.0"),
        ({"quantity": "bias"}, "quantity='bias'"),
    ):
        with pytest.raises(InputError, match=message):
            compared("crs(budget=6)", "crs(budget=5)", problem, **options)
    with pytest.raises(InputError, match="both variances are zero"):
        exact_ratio(0.0, 0.0, 0.1)
    with pytest.raises(InputError, match="both variances are zero"):
        compared("exact", "topk(budget=3)", problem)
