"""The tests of mean and variance: level kept, planted biases found, degenerate samples decided exactly."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from false_alarms import share
from scipy import stats

from wtacrs.estimators import CRS, InputError, NoClosedForm, RowEstimator, RowPlan, joint_norms, make
from wtacrs.validation.monte_carlo import estimates
from wtacrs.validation.problems import make_problem
from wtacrs.validation.significance import holm, mean_test, mean_test_from_projections, variance_test

SOUND = (
    "exact",
    "crs(budget=6)",
    "wta_crs(budget=6)",
    'wta_crs(budget=6, winners="optimal")',
    "wta_crs(budget=6, winners=3)",
)


# tests of a true null hypothesis in the cases that are about something else
NULL_LEVEL = share("mean test: null cases", 4)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal_sample(seed: int, draws: int, columns: int, mean: float = 0.0) -> torch.Tensor:
    return mean + torch.randn(draws, columns, dtype=torch.float64, generator=seeded(seed))


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
    level = share("mean test: calibration", 2)
    assert stats.kstest(p_values, "uniform").pvalue > level
    # and the family of five is rejected no more often than its level says
    rejections = sum(mean_test_from_projections(normal_sample(s, 12, 5), 0.1).rejected for s in range(1000, 2000))
    assert stats.binomtest(rejections, 1000, 0.1, alternative="greater").pvalue > level
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
    assert stats.binomtest(found, 1000, 0.985, alternative="less").pvalue > share("mean test: power")
    small = normal_sample(5, draws, columns)
    small[:, 2] += float(stated) / 10
    assert not mean_test_from_projections(small, NULL_LEVEL).rejected


def test_columns_that_do_not_vary_are_decided_by_their_mean():
    constant = torch.full((10, 1), 1e-9, dtype=torch.float64)
    assert mean_test_from_projections(constant, 1e-6).p_value == 0.0
    assert mean_test_from_projections(constant, 1e-6, rounding=1e-8).p_value == 1.0
    assert mean_test_from_projections(torch.zeros(10, 3), 1e-6).p_value == 1.0


def test_rounding_margin_shifts_the_null():
    sample = normal_sample(3, 1000, 1, mean=1.0)
    assert mean_test_from_projections(sample, 1e-6).rejected
    assert not mean_test_from_projections(sample, 1e-6, rounding=1.1).rejected


@pytest.mark.parametrize("spec", SOUND)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_sound_estimators_are_accepted(spec, dtype):
    x, dy = make_problem("gaussian", 20, 5, 4, generator=seeded(2), dtype=dtype)
    level = share("mean test: sound estimators", 2 * len(SOUND))
    outcome = mean_test(make(spec), x, dy, draws=800, level=level, generator=seeded(3))
    assert not outcome.rejected, outcome
    assert len(outcome.effects) == 9


def test_the_biased_baseline_is_rejected():
    x, dy = make_problem("gaussian", 20, 5, 4, generator=seeded(2))
    outcome = mean_test(make("topk(budget=6)"), x, dy, draws=3, level=1e-9, generator=seeded(3))
    assert outcome.rejected
    assert outcome.p_value == 0.0
    own_mean = make("topk(budget=6)").expectation(x, dy)
    assert not mean_test(make("topk(budget=6)"), x, dy, draws=3, level=1e-9, target=own_mean).rejected


class Shrunk(CRS):
    """CRS times a constant: a relative bias of known size along the target."""

    name = "shrunk"
    factor = 0.9

    def contract(self, saved, dy):
        return super().contract(saved, dy) * self.factor


def test_a_planted_bias_above_the_detectable_size_is_rejected_and_measured():
    x, dy = make_problem("gaussian", 20, 5, 4, generator=seeded(2))
    outcome = mean_test(Shrunk(budget=10), x, dy, draws=4000, level=1e-6, generator=seeded(3))
    assert outcome.detectables[0] < 0.1
    assert outcome.rejected
    assert outcome.effects[0] == pytest.approx(-0.1, abs=outcome.detectables[0])


class OneColumn(CRS):
    """Off in a single entry."""

    name = "one_column"

    def contract(self, saved, dy):
        product = super().contract(saved, dy)
        product[0, 0] += 40.0
        return product


def test_random_directions_see_what_the_target_direction_does_not():
    x, dy = make_problem("gaussian", 20, 5, 4, generator=seeded(2))
    dy[:, 0] = 0.0  # so that the bias is orthogonal to the target
    outcome = mean_test(OneColumn(budget=10), x, dy, draws=2000, level=NULL_LEVEL, generator=seeded(3))
    assert outcome.p_values[0] > NULL_LEVEL
    assert outcome.rejected
    blind = mean_test(OneColumn(budget=10), x, dy, draws=2000, level=NULL_LEVEL, directions=0, generator=seeded(3))
    assert not blind.rejected


def test_projections_of_several_layers_share_one_level():
    """One family over three layers; the bias of one layer is found, the others stay."""
    level = share("mean test: projections")
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


def test_directions_do_not_depend_on_the_draws():
    x, dy = make_problem("gaussian", 12, 3, 2, generator=seeded(2))
    first = mean_test(make("topk(budget=3)"), x, dy, draws=3, level=0.1, generator=seeded(3))
    other = mean_test(make("topk(budget=3)"), x, dy, draws=3, level=0.1, generator=seeded(4))
    assert first.effects == other.effects


def test_zero_target():
    x, dy = torch.ones(4, 2, dtype=torch.float64), torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]).double()
    level = NULL_LEVEL
    assert not mean_test(make("crs(budget=2)"), x, dy, draws=500, level=level, generator=seeded(1)).rejected
    biased = mean_test(make("topk(budget=1)"), x, dy, draws=5, level=level, generator=seeded(1))
    assert biased.rejected
    with pytest.raises(InputError, match="directions=0"):
        mean_test(make("exact"), x, dy, draws=5, level=level, directions=0)


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


def test_a_wrong_closed_form_is_rejected():
    x, dy = make_problem("gaussian", 20, 5, 4, generator=seeded(2))
    outcome = variance_test(Misstated(budget=6), x, dy, draws=3000, level=1e-6, generator=seeded(5))
    assert outcome.rejected
    assert outcome.measured / outcome.stated == pytest.approx(1.25, abs=0.1)
    frozen = variance_test(Claimed(budget=6), x, dy, draws=10, level=1e-6, generator=seeded(5))
    assert (frozen.p_value, frozen.error) == (0.0, 0.0)
    with pytest.raises(NotImplementedError):
        variance_test(Formless(budget=6), x, dy, draws=10, level=1e-6, generator=seeded(5))
    assert issubclass(NoClosedForm, NotImplementedError)


def test_misuse_names_the_argument(unchecked):
    x = torch.ones(4, 2, dtype=torch.float64)
    exact = make("exact")
    for arguments, message in (
        ({"draws": 2, "level": 0.1}, "draws=2"),
        ({"draws": 5, "level": 0.0}, "level=0.0"),
        ({"draws": 5, "level": 0.1, "directions": -1}, "directions=-1"),
        ({"draws": 5, "level": 0.1, "target": torch.ones(1, 2)}, "target must have shape"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            mean_test(exact, x, x, **arguments)
    with pytest.raises(InputError, match="finite"):
        mean_test_from_projections(torch.full((4, 1), float("nan")), 0.1)
    with pytest.raises(InputError, match=r"\[draws, r\]"):
        mean_test_from_projections(torch.zeros(4), 0.1)
    with pytest.raises(InputError, match="level=1\\.5"):
        variance_test(exact, x, x, draws=5, level=1.5)
