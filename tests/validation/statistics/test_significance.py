"""The test on projections and that of the variance: level kept, defects found, degenerate samples decided exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.false_alarms import share

from wtacrs.estimators import CRS, InputError, NoClosedForm, RowEstimator, RowPlan, joint_norms, make
from wtacrs.validation.problems import make_problem
from wtacrs.validation.statistics.monte_carlo import estimates
from wtacrs.validation.statistics.one_sample import holm
from wtacrs.validation.statistics.significance import (
    VarianceTest,
    mean_test_from_projections,
    variance_test,
    variance_verdict,
)

SOUND = (
    "exact",
    "crs(budget=6)",
    "wta_crs(budget=6)",
    'wta_crs(budget=6, winners="optimal")',
    "wta_crs(budget=6, winners=3)",
)


PROJECTIONS = share("mean test: projections", 8)
CALIBRATION = share("variance test: calibration", 4)
POWER = share("variance test: power", 4)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal_sample(seed: int, draws: int, columns: int, mean: float = 0.0) -> torch.Tensor:
    return mean + torch.randn(draws, columns, dtype=torch.float64, generator=seeded(seed))


def naive_holm(p_values: list[float]) -> list[float]:
    """The smallest level at which Holm's procedure, step by step, rejects each hypothesis."""
    adjusted = [1.0] * len(p_values)
    worst = 0.0
    waiting = dict(enumerate(p_values))
    while waiting:
        index = min(waiting, key=waiting.__getitem__)
        worst = max(worst, waiting[index] * len(waiting))
        adjusted[index] = min(worst, 1.0)
        del waiting[index]
    return adjusted


@given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.02, 1.0]), max_size=12), st.floats(0.001, 0.5))
def test_holm_is_its_slow_twin(p_values, level):
    adjusted = holm(np.array(p_values))
    assert adjusted.tolist() == pytest.approx(naive_holm(p_values))
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
    # the first step is Bonferroni's, and more is rejected than by it
    bonferroni = [min(p * len(p_values), 1.0) for p in p_values]
    assert all(a <= b for a, b in zip(adjusted, bonferroni, strict=True))
    assert (min(adjusted, default=1.0) <= level) == (min(bonferroni, default=1.0) <= level)


def test_holm_adjustment_by_hand():
    adjusted = holm(np.array([0.04, 0.01, 0.03, 0.5]))
    assert adjusted == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert holm(np.array([0.9, 0.8])).max() == 1.0


def test_one_column_is_the_t_test():
    sample = normal_sample(1, 20, 1, mean=0.4)
    expected = stats.ttest_1samp(sample.numpy()[:, 0], 0.0)
    found = mean_test_from_projections(sample, 0.05)
    assert found.p_value == pytest.approx(float(expected.pvalue), rel=1e-10)
    assert found.statistic == pytest.approx(abs(float(expected.statistic)), rel=1e-10)
    assert found.effect == pytest.approx(float(sample.mean()))
    assert found.rejected == (found.p_value <= 0.05)


def test_p_values_are_uniform_under_the_null():
    p_values = [mean_test_from_projections(normal_sample(s, 12, 1), 0.01).p_value for s in range(1000)]
    assert stats.kstest(p_values, "uniform").pvalue > PROJECTIONS
    # and the family of five is rejected no more often than its level says
    rejections = sum(mean_test_from_projections(normal_sample(s, 12, 5), 0.1).rejected for s in range(1000, 2000))
    assert stats.binomtest(rejections, 1000, 0.1, alternative="greater").pvalue > PROJECTIONS
    assert rejections > 30  # five independent columns at level 0.02 each: 9.6 % in the mean


def test_stated_power_is_reached():
    """A bias of the stated size in one of five columns is found in 99 % of the samples."""
    level, draws, columns = 1e-3, 60, 5
    stated = np.mean(
        [mean_test_from_projections(normal_sample(s, draws, columns), level).detectable for s in range(50)]
    )
    found = 0
    for seed in range(50, 1050):
        sample = normal_sample(seed, draws, columns)
        sample[:, 2] += float(stated)
        outcome = mean_test_from_projections(sample, level)
        found += outcome.p_values[2] <= level
    assert stats.binomtest(found, 1000, 0.985, alternative="less").pvalue > PROJECTIONS
    small = normal_sample(5, draws, columns)
    small[:, 2] += float(stated) / 10
    assert not mean_test_from_projections(small, PROJECTIONS).rejected


def test_columns_that_do_not_vary_are_decided_by_their_mean():
    constant = torch.full((10, 1), 1e-9, dtype=torch.float64)
    assert mean_test_from_projections(constant, 1e-6).p_value == 0.0
    assert mean_test_from_projections(constant, 1e-6, rounding=1e-8).p_value == 1.0
    assert mean_test_from_projections(torch.zeros(10, 3), 1e-6).p_value == 1.0


def test_rounding_margin_shifts_the_null():
    sample = normal_sample(3, 1000, 1, mean=1.0)
    assert mean_test_from_projections(sample, 1e-6).rejected
    assert not mean_test_from_projections(sample, 1e-6, rounding=1.1).rejected


class Shrunk(CRS):
    """CRS times a constant: a relative bias of known size along the target."""

    name = "shrunk"
    factor = 0.9

    def contract(self, saved, dy):
        return super().contract(saved, dy) * self.factor


@pytest.mark.usefixtures("unchecked")
def test_projections_of_several_layers_share_one_level():
    """One family over three layers; the bias of one layer is found, the others stay."""
    level = PROJECTIONS
    columns = []
    for layer, estimator in enumerate((CRS(budget=8), Shrunk(budget=8), CRS(budget=8))):
        x, dy = make_problem("low_rank_mean", 20, 4, 3, generator=seeded(layer))
        exact = dy.T @ x
        direction = exact / exact.norm() ** 2
        draws = estimates(estimator, x, dy, 1500, joint_norms(x, dy), seeded(40 + layer))
        columns.append(torch.stack([((g - exact) * direction).sum() for g in draws]))
    outcome = mean_test_from_projections(torch.stack(columns, dim=1), level)
    assert [p <= level for p in outcome.p_values] == [False, True, False]
    assert outcome.effect == pytest.approx(-0.1, abs=outcome.detectables[1])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("family", ["gaussian", "coherent"])
@pytest.mark.parametrize("spec", SOUND)
def test_variance_of_sound_estimators_is_accepted(spec, family):
    x, dy = make_problem(family, 20, 5, 4, generator=seeded(2))
    level = share("variance test: sound estimators", 2 * len(SOUND))
    outcome = variance_test(make(spec), x, dy, draws=1200, level=level, generator=seeded(5))
    assert not outcome.rejected, outcome


class Misstated(CRS):
    """Claims a variance 20 % too small."""

    name = "misstated"

    def variance(self, x, dy, *, scores=None):
        return super().variance(x, dy, scores=scores) * 0.8


class Claimed(CRS):
    """Does not vary, yet claims to."""

    name = "claimed"

    def plan(self, scores, uniforms):
        return super().plan(scores, torch.full_like(uniforms, 0.5))


class Formless(RowEstimator):
    """No closed form at all."""

    name = "formless"
    traits = CRS.traits

    def plan(self, scores, uniforms):
        return RowPlan((uniforms * scores.shape[0]).long(), torch.ones_like(uniforms))


def noise_tests(stated: float, seed: int, runs: int, pairs: int = 60) -> list[VarianceTest]:
    """Tests of a claim about normal noise of total variance 6, nearly all of it in one direction: skewed squares."""
    sizes = torch.tensor([5.0, 0.7, 0.3], dtype=torch.float64)
    noise = torch.randn(runs, pairs, 3, dtype=torch.float64, generator=seeded(seed))
    return [
        variance_verdict(squares, stated, 0.01, rounding=0.0)
        for squares in (noise.square() * sizes).sum(-1).tolist()
    ]


def test_p_values_of_a_true_variance_are_uniform():
    """The squares have skewness 2.6; a plain t test on them would not be uniform, as the last line shows."""
    tests = noise_tests(6.0, 8, 1000)
    assert stats.kstest([t.p_value for t in tests], "uniform").pvalue > CALIBRATION
    for level in (0.01, 0.05):
        found = sum(t.p_value <= level for t in tests)
        # 0.01 is off by O(1/n) even after the correction
        assert stats.binomtest(found, len(tests), 1.5 * level, alternative="greater").pvalue > CALIBRATION
    standardised = np.array([(t.measured - t.stated) / t.error for t in tests])
    assert abs(standardised.mean()) > 3 * abs(np.mean([t.statistic for t in tests]))


@pytest.mark.parametrize("factor", [1.3, 1 / 1.3])
def test_a_closed_form_that_is_off_is_rejected_as_often_as_stated(factor):
    """Once 1.3 times is above the stated detectable share of the claim, it is seen in 99 % of the runs."""
    runs, pairs = 200, 2000
    assert all(t.detectable < 1 - 1 / 1.3 for t in noise_tests(6.0, 9, 10, pairs))
    found = sum(t.rejected for t in noise_tests(6.0 * factor, 10, runs, pairs))
    assert stats.binomtest(found, runs, 0.99, alternative="less").pvalue > POWER
    assert sum(t.rejected for t in noise_tests(6.0 * 1.05, 11, runs, pairs)) < runs / 2


def test_variance_zero_is_decided_by_rounding():
    """Multiples of one row: the closed form is a difference of equal terms, the draws differ by rounding only."""
    sizes = torch.rand(30, 1, dtype=torch.float64, generator=seeded(12)) + 0.1
    x, dy = sizes * torch.tensor([[0.1, 0.2, 0.7]]).double(), sizes * torch.tensor([[0.3, 0.1]]).double()
    for dtype in (torch.float64, torch.float32):
        outcome = variance_test(
            make("crs(budget=7)"), x.to(dtype), dy.to(dtype), scores=joint_norms(x, dy), draws=40, level=0.5
        )
        assert not outcome.rejected, outcome


@pytest.mark.usefixtures("unchecked")
def test_a_wrong_closed_form_is_rejected():
    x, dy = make_problem("gaussian", 20, 5, 4, generator=seeded(2))
    outcome = variance_test(Misstated(budget=6), x, dy, draws=3000, level=1e-6, generator=seeded(5))
    assert outcome.rejected
    assert outcome.measured / outcome.stated == pytest.approx(1.25, abs=0.1)
    frozen = variance_test(Claimed(budget=6), x, dy, draws=100, level=1e-6, generator=seeded(5))
    assert (frozen.p_value, frozen.error) == (2.0**-49, 0.0)
    with pytest.raises(NoClosedForm):
        variance_test(Formless(budget=6), x, dy, draws=10, level=1e-6, generator=seeded(5))
    assert not issubclass(NoClosedForm, NotImplementedError)  # which is what torch raises for a missing kernel


def test_misuse_names_the_argument(unchecked):
    x = torch.ones(4, 2, dtype=torch.float64)
    with pytest.raises(InputError, match="finite"):
        mean_test_from_projections(torch.full((4, 1), float("nan")), 0.1)
    with pytest.raises(InputError, match=r"\[draws, r\]"):
        mean_test_from_projections(torch.zeros(4), 0.1)
    with pytest.raises(InputError, match="level=1\\.5"):
        variance_test(make("exact"), x, x, draws=5, level=1.5)
