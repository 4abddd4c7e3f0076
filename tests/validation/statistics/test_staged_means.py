"""The staged test of a mean: three outcomes, its level, its power, and what it says about numbers that are all alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.false_alarms import share
from torch import Tensor

from wtacrs.estimators import InputError
from wtacrs.validation.statistics.one_sample import noncentrality
from wtacrs.validation.statistics.staged_means import (
    FIRST_STAGE,
    RAREST,
    STAGES,
    Demand,
    Direction,
    DirectionFinding,
    pooled,
    staged_mean_test,
)

TARGET = torch.tensor([3.0, 0.0, 4.0, 1.0], dtype=torch.float64)
FIRST = torch.tensor([3.0, 0.0, 0.0, 0.0], dtype=torch.float64)
ACCOUNT = share("staged means", 5)
DIRECTIONS = (Direction("all", TARGET), Direction("first", FIRST))


def normal(mean: Tensor, std: float, seed: int):
    generator = torch.Generator().manual_seed(seed)
    return lambda: mean + std * torch.randn(len(mean), dtype=torch.float64, generator=generator)


def outcome(mean: Tensor, std: float, seed: int = 0, **demand):
    return staged_mean_test(normal(mean, std, seed), TARGET, DIRECTIONS, Demand(**demand))


def test_a_true_mean_holds_once_the_bias_asked_for_is_ruled_out() -> None:
    found = outcome(TARGET, 1.0, level=ACCOUNT, bias=0.05)
    assert found.outcome == "holds"
    assert (
        found.draws == FIRST_STAGE << 5
    )  # 7.9 standard errors of 1/3 are 0.05 at 2,800 draws, the next stage is 3,200
    assert found.ruled_out <= 0.05
    assert all(abs(each.share - 1.0) < 0.05 for each in found.directions)


def test_few_draws_leave_it_undecided_whatever_the_mean() -> None:
    for mean in (TARGET, 1.05 * TARGET):
        found = outcome(mean, 1.0, bias=0.01, draws=400)
        assert (found.outcome, found.draws) == ("undecided", 400)
        assert found.ruled_out > 0.01


@pytest.mark.parametrize("factor", [0.0, 0.9, 1.1])
def test_a_scaled_mean_is_broken_for_every_seed(factor: float) -> None:
    found = [outcome(factor * TARGET, 1.0, seed) for seed in range(20)]
    assert {each.outcome for each in found} == {"broken"}
    assert all(abs(each.directions[0].share - factor) < 0.1 for each in found)


def test_a_part_is_told_from_the_whole() -> None:
    """A first entry that counts half moves the whole by a sixth, and itself by a half."""
    mean = TARGET - FIRST / 2
    found = outcome(mean, 0.1)
    whole, first = found.directions
    assert found.outcome == "broken"
    assert first.share == pytest.approx(0.5, abs=0.02)
    assert whole.share == pytest.approx(1 - 4.5 / 26, abs=0.02)


def test_a_bias_beside_all_directions_is_found_by_the_draws_before() -> None:
    found = outcome(TARGET + torch.tensor([0.0, 0.5, 0.0, 0.0]), 0.5)
    assert found.outcome == "broken"
    assert min(each.p_value for each in found.directions) > found.look_level
    assert found.anywhere_bias == pytest.approx(0.5 / 26**0.5, rel=0.3)


def test_the_levels_of_all_looks_add_up_to_the_level() -> None:
    found = outcome(TARGET, 1.0, level=1e-3)
    assert found.look_level * STAGES * (len(DIRECTIONS) + 1) == pytest.approx(1e-3)


def test_false_alarms_stay_within_a_level_that_can_be_seen() -> None:
    """600 tests at level 0.05 with skewed draws; binomial bound at this test's share of the budget."""
    from scipy import stats

    runs, level = 600, 0.05
    generator = torch.Generator().manual_seed(3)
    rejected = 0
    for _ in range(runs):

        def draw() -> Tensor:
            hits = (torch.rand(1, dtype=torch.float64, generator=generator) < 0.2).double() / 0.2
            return TARGET * hits

        rejected += staged_mean_test(draw, TARGET, DIRECTIONS, Demand(level=level, bias=10.0)).outcome == "broken"
    assert rejected <= stats.binom.isf(ACCOUNT, runs, level)


def test_numbers_that_are_all_alike_reject_late() -> None:
    """An event of probability 1/100 may not have happened in few draws, however alike these are."""
    level = 1e-6 / STAGES / 3
    least = math.log(level) / math.log1p(-RAREST)
    found = staged_mean_test(lambda: 0.9 * TARGET, TARGET, DIRECTIONS, Demand())
    assert found.outcome == "broken"
    assert least <= found.draws < 2 * least
    few = staged_mean_test(lambda: 0.9 * TARGET, TARGET, DIRECTIONS, Demand(draws=400))
    assert few.outcome == "undecided"
    exact = staged_mean_test(lambda: TARGET, TARGET, DIRECTIONS, Demand())
    assert (exact.outcome, exact.draws) == ("holds", FIRST_STAGE)


def test_rounding_is_no_bias() -> None:
    tolerant = [Direction("all", TARGET, rounding=0.01)]
    for factor, expected in ((1.005, "holds"), (1.05, "broken")):
        found = staged_mean_test(normal(factor * TARGET, 0.1, 1), TARGET, tolerant, Demand(), rounding=0.06)
        assert found.outcome == expected


def test_the_time_limit_ends_a_stage() -> None:
    found = outcome(TARGET, 1.0, limit=1e-6)
    assert found.outcome == "undecided"
    assert found.draws < FIRST_STAGE


def test_stated_detectable_biases_are_detected() -> None:
    """A bias of the stated size, at the last stage, is rejected in nearly all of 200 runs: 99 % are promised."""
    from scipy import stats

    runs = 200
    sized = outcome(TARGET, 1.0, level=1e-3, bias=0.2)
    shift = sized.directions[1].detectable
    mean = TARGET + shift * FIRST
    found = [outcome(mean, 1.0, seed, level=1e-3, draws=sized.draws) for seed in range(runs)]
    missed = sum(each.outcome != "broken" for each in found)
    assert missed <= stats.binom.isf(ACCOUNT, runs, 0.01)


def test_stated_detectable_biases_are_detected_away_from_a_long_tail() -> None:
    """Draws of skewness 2.7 whose mean is too small; the plain noncentrality promises a bias that nearly all miss."""
    from scipy import stats

    runs, draws, hit = 100, FIRST_STAGE, 0.1
    generator = torch.Generator().manual_seed(8)

    def judged(bias: float):
        hits = (torch.rand(draws, 1, dtype=torch.float64, generator=generator) < hit).double() / hit
        source = iter(TARGET * (1 - bias + 0.2 * (hits - 1)))
        return staged_mean_test(lambda: next(source), TARGET, DIRECTIONS[:1], Demand(level=1e-6, draws=draws))

    stated = max(judged(0.0).ruled_out for _ in range(20))
    plain = noncentrality(1e-6 / STAGES / 2, draws, 0.99, sides=2) * 0.6 / math.sqrt(draws)
    assert stated > 2 * plain
    assert sum(judged(stated).outcome != "broken" for _ in range(runs)) <= stats.binom.isf(ACCOUNT, runs, 0.01)
    assert sum(judged(plain).outcome != "broken" for _ in range(runs)) > runs / 2


def test_findings_of_several_problems_are_stronger_together() -> None:
    weak = [DirectionFinding("all", "all", 0.9, 0.03, 0.0, 8.6e-4, 0.2) for _ in range(9)]
    found = pooled(weak, 1e-6)
    assert found is not None
    assert found.p_value < 1e-20
    assert found.share == pytest.approx(0.9)
    assert found.error == pytest.approx(0.01)
    mixed = [each._replace(share=1.0 + (-1) ** i * 0.1) for i, each in enumerate(weak[:8])]
    balanced = pooled(mixed, 1e-6)
    assert balanced is not None
    assert balanced.p_value == pytest.approx(1.0)
    assert pooled(weak[:1], 1e-6) is None


def test_pooled_p_values_are_uniform_where_there_is_no_bias() -> None:
    """A Kolmogorov–Smirnov test of 500 of them at this test's share of the budget."""
    from scipy import stats

    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(500):
        scores = rng.standard_normal(6)
        findings = [
            DirectionFinding("all", "all", 1 + 0.1 * z, 0.1, 0.0, float(2 * stats.norm.sf(abs(z))), 0.5)
            for z in scores
        ]
        found = pooled(findings, 1e-6)
        assert found is not None
        p_values.append(found.p_value)
    assert stats.kstest(p_values, "uniform").pvalue > ACCOUNT


def test_misuse_names_the_argument() -> None:
    with pytest.raises(InputError, match="directions must be at least one"):
        staged_mean_test(lambda: TARGET, TARGET, [], Demand())
    with pytest.raises(InputError, match="NaN"):
        staged_mean_test(lambda: TARGET * math.nan, TARGET, DIRECTIONS, Demand())
    for wrong in ({"level": 0.0}, {"power": 1.0}, {"bias": 0.0}, {"limit": math.inf}, {"draws": 3}):
        (name,) = wrong
        with pytest.raises(InputError, match=name):
            Demand(**wrong)
