"""The mean test in stages: its level over all looks, its power at the bias asked for, and what is measured beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import stats
from support.false_alarms import share
from torch import Tensor

from wtacrs.validation.statistics import staged_splits
from wtacrs.validation.statistics.one_sample import OneSample, least_shift, noncentrality, one_sample
from wtacrs.validation.statistics.staged_means import RAREST, Demand
from wtacrs.validation.statistics.staged_splits import STAGES, StagedSplit, staged_split_test

TARGET = torch.tensor([[3.0, 0.0], [4.0, 1.0]], dtype=torch.float64)
UNIT = float(TARGET.norm())
ACCOUNT = share("staged splits", 4)


def numbers(mean: Tensor, std: float, seed: int) -> Iterator[Tensor]:
    """Normal draws in blocks: many small calls would take most of the time."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from mean + std * torch.randn(64, *TARGET.shape, dtype=torch.float64, generator=generator)


def outcome(mean: Tensor, std: float = 1.0, seed: int = 0, first: int = 40, **demand: float) -> StagedSplit:
    source = numbers(mean, std, seed)
    return staged_split_test(lambda: next(source), TARGET, Demand(**demand), first, rounding=0.0)


def test_it_ends_once_the_bias_asked_for_is_ruled_out() -> None:
    found = outcome(TARGET, level=ACCOUNT, bias=0.1)
    assert not found.test.rejected
    assert found.test.draws == 40 << (found.looks - 1)
    assert found.test.detectable_along <= 0.1 < 2**0.5 * found.test.detectable_along * 1.1
    assert outcome(TARGET, level=ACCOUNT, bias=0.01).looks == STAGES


def test_the_last_look_is_at_all_draws_and_splits_them_at_the_stage() -> None:
    """Against the same numbers from draws that are all at hand; the p-value is that of eight looks."""
    source = numbers(1.02 * TARGET, 1.0, 3)
    drawn: list[Tensor] = []

    def draw() -> Tensor:
        drawn.append(next(source))
        return drawn[-1]

    found = staged_split_test(draw, TARGET, Demand(level=1e-6, bias=0.16), 40, rounding=0.0)
    assert found.looks == 3
    errors = torch.stack(drawn).flatten(1) - TARGET.flatten()
    assert len(errors) == found.test.draws == 160
    looks = [_look(errors[:count], count // 2) for count in (40, 80, 160)]
    assert (found.test.any_p_value, found.test.along_p_value) == pytest.approx(looks[-1])
    assert found.test.along == pytest.approx(float((errors @ TARGET.flatten()).mean()) / UNIT**2)
    assert found.test.p_value == pytest.approx(STAGES * min(2 * min(look) for look in looks))


def _look(errors: Tensor, pilot: int) -> tuple[float, float]:
    """p-values in any direction and along the target."""
    direction = errors[:pilot].mean(0)
    fresh = errors[pilot:] @ (direction / direction.norm())
    along = errors @ (TARGET.flatten() / UNIT)
    return one_sample(fresh.numpy(), side="greater").p_value, one_sample(along.numpy()).p_value


def test_what_is_measured_of_the_spread_is_of_the_first_stage_whatever_follows() -> None:
    """A fixed number of draws, the same ones for every demand: the stopping rule cannot choose among them."""
    first = torch.stack([next(source) for source in [numbers(TARGET, 1.0, 5)] for _ in range(40)])
    errors = (first - TARGET).flatten(1)
    halves = (errors[0::2] - errors[1::2]).square().sum(1) / 2
    looks = set()
    for bias in (0.5, 0.1, 0.03):
        found = outcome(TARGET, seed=5, level=1e-6, bias=bias)
        looks.add(found.looks)
        assert found.pair_squares == pytest.approx(halves.tolist())
        assert found.squares == pytest.approx(errors.square().sum(1).tolist())
    assert len(looks) == 3


def test_false_alarms_stay_within_a_level_that_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 tests of four looks at level 0.2, skewed draws; uncorrected looks, the planted defect, are caught."""
    monkeypatch.setattr(staged_splits, "STAGES", 4)
    runs, level, target = 400, 0.2, TARGET + torch.eye(2, dtype=torch.float64).flip(0)
    generator = torch.Generator().manual_seed(11)
    p_values = []
    for _ in range(runs):
        hits = iter((torch.rand(128, 2, 2, dtype=torch.float64, generator=generator) < 0.3).double() / 0.3)
        found = staged_split_test(
            lambda hits=hits: target * next(hits), target, Demand(level=level, bias=1e-3), 16, rounding=0.0
        )
        p_values.append(found.test.p_value)
    most = stats.binom.isf(ACCOUNT, runs, level)
    assert sum(p <= level for p in p_values) <= most
    assert sum(p / 4 <= level for p in p_values) > most


def test_a_bias_of_the_size_asked_for_is_seen() -> None:
    """99 % are promised, though the spread that ends the looking is estimated; 150 tests."""
    runs, asked = 150, 0.3
    found = [outcome((1 + asked) * TARGET, 2.5, seed, first=100, level=1e-3, bias=asked) for seed in range(runs)]
    assert len({each.looks for each in found}) > 1
    missed = sum(not each.test.rejected for each in found)
    assert missed <= stats.binom.isf(ACCOUNT, runs, 0.01)


def test_a_bias_of_the_size_asked_for_is_seen_away_from_a_long_tail() -> None:
    """Draws of skewness 0.87 whose mean is too small: δ standard errors would promise too much there."""
    runs, first, share_hit, std = 150, 40, 0.3, 0.6
    skewness = (1 - 2 * share_hit) / math.sqrt(share_hit * (1 - share_hit))
    plain = noncentrality(1e-3 / STAGES / 2, first, 0.99, sides=2) / math.sqrt(first)
    asked = least_shift(OneSample(0.0, std / math.sqrt(first), 0.0, 1.0, skewness), 1e-3 / STAGES / 2, first)
    assert asked == pytest.approx(std * 3 * (1 - np.cbrt(1 - skewness * plain)) / skewness)
    assert asked > 1.3 * std * plain
    missed = 0
    generator = torch.Generator().manual_seed(2)
    scale = std / math.sqrt((1 - share_hit) / share_hit)
    for _ in range(runs):
        hits = (torch.rand(8 * first, dtype=torch.float64, generator=generator) < share_hit).double() / share_hit
        factors = iter(1 - asked + scale * (hits - 1))
        found = staged_split_test(
            lambda factors=factors: TARGET * next(factors),
            TARGET,
            Demand(level=1e-3, bias=asked),
            first,
            rounding=0.0,
        )
        missed += not found.test.rejected
    assert missed <= stats.binom.isf(ACCOUNT, runs, 0.01)


def test_no_stage_is_begun_that_would_end_too_late() -> None:
    found = outcome(TARGET, level=1e-6, bias=0.01, limit=1e-6)
    assert (found.looks, found.test.draws) == (1, 40)
    assert found.test.detectable_along > 0.01


def test_more_draws_do_not_help_against_rounding() -> None:
    source = numbers(TARGET, 1.0, 0)
    demand = Demand(level=1e-6, bias=0.01)
    assert staged_split_test(lambda: next(source), TARGET, demand, 40, rounding=0.02 * UNIT).looks == 1


def test_draws_that_are_all_alike_and_off_reject_late() -> None:
    found = staged_split_test(lambda: 0.9 * TARGET, TARGET, Demand(level=1e-3), 40, rounding=0.0)
    assert found.test.rejected
    least = math.log(1e-3 / STAGES) / math.log1p(-RAREST)
    assert least / 2 < found.test.draws / 2
    few = staged_split_test(lambda: 0.9 * TARGET, TARGET, Demand(level=1e-3, limit=1e-6), 40, rounding=0.0)
    assert not few.test.rejected
    assert math.isinf(few.test.detectable_along)
    exact = staged_split_test(lambda: TARGET, TARGET, Demand(level=1e-3), 40, rounding=0.0)
    assert (exact.looks, exact.test.p_value, exact.test.detectable_along) == (1, 1.0, 0.0)
