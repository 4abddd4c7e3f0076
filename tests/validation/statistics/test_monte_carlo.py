"""Streaming moments: equal to moments of stored draws, honest standard errors, equal to the closed forms."""

from __future__ import annotations

import math
import weakref

import pytest
import torch
from scipy import stats
from support.false_alarms import share

from wtacrs.estimators import CRS, Estimator, InputError, joint_norms, make
from wtacrs.validation.enumeration.exact_moments import enumerate_moments
from wtacrs.validation.problems import make_problem
from wtacrs.validation.statistics.monte_carlo import Running, estimates, monte_carlo
from wtacrs.validation.statistics.significance import mean_test

SPECS = ("exact", "topk(budget=5)", "crs(budget=5)", "wta_crs(budget=5)", 'wta_crs(budget=5, winners="optimal")')
FAMILIES = ("gaussian", "heavy_tailed")
REPETITIONS = 200


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("spec", SPECS)
def test_streaming_equals_stored_draws(spec, generator):
    x, dy = make_problem("heavy_tailed", 15, 4, 3, generator=generator)
    estimator, target = make(spec), torch.ones(3, 4, dtype=torch.float64)
    found = monte_carlo(estimator, x, dy, draws=200, generator=seeded(3), target=target)
    stored = torch.stack(list(estimates(estimator, x, dy, 200, None, seeded(3))))
    scale = float(stored.square().sum((1, 2)).mean())
    torch.testing.assert_close(found.mean, stored.mean(0), rtol=1e-10, atol=1e-10)
    variance = float(stored.var(0).sum())
    errors = (stored - target).square().sum((1, 2))
    bias_squared = float((stored.mean(0) - target).square().sum()) - variance / 200
    assert found.variance == pytest.approx(variance, rel=1e-10, abs=1e-20 * scale)
    assert found.mse == pytest.approx(float(errors.mean()), rel=1e-10)
    assert found.mse_error == pytest.approx(float(errors.std()) / math.sqrt(200), rel=1e-9, abs=1e-12 * scale)
    assert found.bias_squared == pytest.approx(bias_squared, rel=1e-9)


def test_running_moments():
    running = Running()
    assert math.isinf(running.error)
    for value in (1e9, 1e9 + 1, 1e9 + 2, 1e9 + 3):
        running.add(value)
    assert running.mean == 1e9 + 1.5
    assert running.error == pytest.approx(math.sqrt(5 / 3 / 4), rel=1e-9)


def test_no_draw_is_kept(generator):
    x, dy = make_problem("gaussian", 10, 4, 3, generator=generator)
    alive: list[weakref.ref] = []
    most = []

    class MeanTracker(CRS):
        name = "watched"

        def contract(self, saved, dy):
            most.append(sum(ref() is not None for ref in alive))
            product = super().contract(saved, dy)
            alive.append(weakref.ref(product))
            return product

    monte_carlo(MeanTracker(budget=3), x, dy, draws=100, generator=generator)
    assert len(most) == 100
    assert max(most) <= 2


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spec", SPECS)
def test_monte_carlo_is_the_closed_form(spec, family):
    """Mean by the corrected t test; variance, squared bias and error by their own standard errors."""
    cases = len(SPECS) * len(FAMILIES)
    x, dy = make_problem(family, 15, 4, 3, generator=seeded(11))
    estimator, scores = make(spec), joint_norms(x, dy)
    expectation = estimator.expectation(x, dy, scores=scores)
    mean = mean_test(
        estimator,
        x,
        dy,
        draws=1500,
        level=share("monte carlo: mean", cases),
        target=expectation,
        scores=scores,
        generator=seeded(12),
    )
    assert not mean.rejected, mean
    # three numbers in each case, two-sided
    reach = float(stats.norm.isf(share("monte carlo: standardised errors", 3 * cases) / 2))
    found = monte_carlo(estimator, x, dy, draws=1500, scores=scores, generator=seeded(13))
    exact = dy.T @ x
    variance = float(estimator.variance(x, dy, scores=scores))
    bias_squared = float((expectation - exact).square().sum())
    rounding = 1e-12 * float(scores.sum()) ** 2
    assert abs(found.variance - variance) <= reach * found.variance_error + rounding
    assert abs(found.bias_squared - bias_squared) <= reach * found.bias_squared_error + rounding
    assert abs(found.mse - variance - bias_squared) <= reach * found.mse_error + rounding
    if not estimator.traits.deterministic:
        # the margin itself is small: an error bar that swallowed everything would be caught here
        assert reach * found.variance_error < 0.5 * variance


class Noisy(Estimator):
    """The exact product plus skewed noise of known moments: cheap enough to repeat whole runs."""

    name = "noisy"
    traits = CRS.traits

    def compress(self, x, *, scores=None, generator=None):
        noise = torch.empty(5, 6, dtype=torch.float64).exponential_(generator=generator) - 1.0
        return x, noise * torch.linspace(0.1, 1.0, 6, dtype=torch.float64)

    def contract(self, saved, dy):
        return dy.T @ saved[0] + saved[1]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_standard_errors_are_the_std_over_repetitions(shift):
    """Spread of each moment over independent runs against the error that each run states.

    Over R runs the ratio's own standard deviation is about 1/√(2R). The squared bias has more room below at no
    bias, where its stated error may be a third too large.
    """
    x, dy = make_problem("gaussian", 4, 6, 5, generator=seeded(21))
    target = dy.T @ x + shift
    draws = seeded(22)
    runs = [monte_carlo(Noisy(), x, dy, draws=60, generator=draws, target=target) for _ in range(REPETITIONS)]
    margin = float(stats.norm.isf(share("monte carlo: stated errors", 6) / 2)) / math.sqrt(2 * REPETITIONS)
    for moment in ("variance", "bias_squared", "mse"):
        values = torch.tensor([getattr(run, moment) for run in runs], dtype=torch.float64)
        stated = torch.tensor([getattr(run, f"{moment}_error") for run in runs], dtype=torch.float64)
        ratio = float(values.std() / stated.square().mean().sqrt())
        lowest = 0.6 if (moment, shift) == ("bias_squared", 0.0) else 1.0
        assert lowest - margin < ratio < 1.0 + margin, (moment, ratio)
    variance = float(5 * torch.linspace(0.1, 1.0, 6, dtype=torch.float64).square().sum())
    for moment, truth in (("variance", variance), ("bias_squared", 30 * shift), ("mse", variance + 30 * shift)):
        values = torch.tensor([getattr(run, moment) for run in runs], dtype=torch.float64)
        outcome = stats.ttest_1samp(values.numpy(), truth)
        assert outcome.pvalue > share("monte carlo: unbiased moments", 6), (moment, float(values.mean()), truth)


def test_moments_of_an_enumerated_problem(generator):
    x, dy = make_problem("gaussian", 5, 3, 2, generator=generator)
    exact = enumerate_moments(CRS(budget=2), x, dy)
    found = monte_carlo(CRS(budget=2), x, dy, draws=2000, generator=seeded(1))
    reach = float(stats.norm.isf(share("monte carlo: beside enumeration") / 2))
    assert found.variance == pytest.approx(exact.variance, abs=reach * found.variance_error)
    assert found.draws == 2000


def test_misuse_names_the_argument(unchecked):
    x = torch.ones(4, 2, dtype=torch.float64)
    with pytest.raises(InputError, match="draws=2"):
        monte_carlo(make("exact"), x, x, draws=2)
    with pytest.raises(InputError, match=r"\[2, 2\]"):
        monte_carlo(make("exact"), x, x, draws=5, target=torch.ones(3, 2))
