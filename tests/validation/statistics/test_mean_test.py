"""The test of the mean: its numbers by slow twins, its level, and its power against biases of stated size."""

from __future__ import annotations

import math
import re
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats
from support.false_alarms import share
from support.planted import WeightOffByK
from torch import Tensor

from wtacrs.estimators import CRS, InputError, joint_norms, make
from wtacrs.validation.problems import make_problem
from wtacrs.validation.statistics.one_sample import one_sample
from wtacrs.validation.statistics.significance import MeanTest, mean_test, mean_verdict, min_detectable_bias
from wtacrs.validation.statistics.streaming import PairDifferences, SplitDraws

SOUND = (
    "exact",
    "crs(budget=6)",
    "wta_crs(budget=6)",
    'wta_crs(budget=6, winners="optimal")',
    "wta_crs(budget=6, winners=3)",
)
NULL_LEVEL = share("mean test: null cases", 4)
CALIBRATION = share("mean test: calibration", 12)
POWER = share("mean test: power", 16)
TARGET = torch.ones(2, 3, dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class StoredPairs(PairDifferences):
    """`PairDifferences` of draws that are all at hand: what the stream finds one by one, at once."""

    def __init__(self, e: Tensor) -> None:
        half = len(e) // 2 * 2
        d = (e[0:half:2] - e[1:half:2]) / math.sqrt(2)
        self._d = d.numpy()

    @property
    def squares(self) -> list[float]:
        return (self._d**2).sum(1).tolist()

    @property
    def squared_spectrum(self) -> tuple[float, float]:
        products = (self._d[:-1] * self._d[1:]).sum(1) ** 2
        return float(products.mean()), 2 * math.sqrt(2 * products.var(ddof=1) / len(products))


class StoredDraws(SplitDraws):
    """`SplitDraws` of draws that are all at hand, `target + errors[t]`; equal to the stream, and much faster."""

    def __init__(self, errors: Tensor) -> None:
        e = errors.flatten(1)
        self.pilot = len(e) // 2
        self.pairs = StoredPairs(e)
        self._e = e.numpy()
        self._mean = self._e[: self.pilot].mean(0)

    @property
    def along(self) -> list[float]:
        return (self._e @ (TARGET.flatten() / TARGET.norm()).numpy()).tolist()

    @property
    def split(self) -> list[float]:
        return (self._e[self.pilot :] @ (self._mean / np.linalg.norm(self._mean))).tolist()

    @property
    def squares(self) -> list[float]:
        return (self._e**2).sum(1).tolist()

    @property
    def pilot_bias(self) -> float:
        return float(np.linalg.norm(self._mean))

    @property
    def bias_squared(self) -> float:
        count = len(self._e)
        return float((self._e.sum(0) ** 2).sum() - (self._e**2).sum()) / (count * (count - 1))


def judge(errors: Tensor, level: float) -> MeanTest:
    """The verdict on draws `target + errors[t]`."""
    return mean_verdict(StoredDraws(errors), level, unit=1.0, rounding=0.0)


def gaussian(spectrum: list[float], shape: tuple[int, int], seed: int) -> Tensor:
    """`[replications, draws, 2, 3]` of normal draws with these eigenvalues of Σ on the entries."""
    noise = torch.randn(*shape, 6, dtype=torch.float64, generator=seeded(seed))
    return (noise * torch.tensor(spectrum, dtype=torch.float64).sqrt()).unflatten(-1, (2, 3))


def test_stream_equals_stored_draws():
    errors = gaussian([3.0, 1.0, 1.0, 0.5, 0.1, 0.0], (1, 9), 0)[0] + 0.3
    stream = SplitDraws(TARGET, 9)
    for error in errors:
        stream.add(TARGET + error)
    e = errors.flatten(1)
    pilot = e[:4].mean(0)
    assert stream.pilot_bias == pytest.approx(float(pilot.norm()))
    assert stream.split == pytest.approx((e[4:] @ (pilot / pilot.norm())).tolist())
    assert stream.along == pytest.approx((e.sum(1) / math.sqrt(6)).tolist())
    assert stream.squares == pytest.approx(e.square().sum(1).tolist())
    assert stream.bias_squared == pytest.approx(
        float(np.mean([float(e[s] @ e[t]) for s, t in permutations(range(9), 2)]))
    )
    d = [(e[2 * s] - e[2 * s + 1]) / math.sqrt(2) for s in range(4)]
    assert stream.pairs.squares == pytest.approx([float(v @ v) for v in d])
    products = np.array([float(d[s] @ d[s + 1]) ** 2 for s in range(3)])
    assert stream.pairs.squared_spectrum == pytest.approx(
        (products.mean(), 2 * math.sqrt(2 * products.var(ddof=1) / 3))
    )


@pytest.mark.parametrize("draws", [6, 9, 40, 61])
def test_draws_at_hand_are_judged_as_the_stream_is(draws: int) -> None:
    errors = gaussian([3.0, 1.0, 1.0, 0.5, 0.1, 0.0], (1, draws), draws)[0] + 0.3
    stream = SplitDraws(TARGET, draws)
    for error in errors:
        stream.add(TARGET + error)
    assert judge(errors, 1e-3) == pytest.approx(mean_verdict(stream, 1e-3, unit=1.0, rounding=0.0), rel=1e-9)


def skewed(shape: tuple[int, int], seed: int) -> Tensor:
    """Draws of which a rare, large one makes up much of the mean, as of a row with a small probability."""
    u = torch.rand(*shape, 6, dtype=torch.float64, generator=seeded(seed))
    return (-(1 - u).log() - 1.0).unflatten(-1, (2, 3))


NULLS = {
    "one direction": lambda shape: gaussian([1.0, 0, 0, 0, 0, 0], shape, 1),
    "many directions": lambda shape: gaussian([1.0] * 6, shape, 2),
    "skewed": lambda shape: skewed(shape, 3),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("null", NULLS)
def test_p_values_are_uniform_if_there_is_no_bias(null):
    tests = [judge(errors, 0.05) for errors in NULLS[null]((500, 40))]
    assert stats.kstest([t.any_p_value for t in tests], "uniform").pvalue > CALIBRATION
    assert stats.kstest([t.along_p_value for t in tests], "uniform").pvalue > CALIBRATION
    rejections = sum(t.rejected for t in tests)
    assert stats.binomtest(rejections, len(tests), 0.05, alternative="greater").pvalue > CALIBRATION
    assert rejections > 5  # and it is not merely cautious


@pytest.mark.usefixtures("unchecked")
def test_squared_bias_and_its_error_are_honest():
    """Unbiased with and without a bias; its standard deviation over replications is the error that each run states."""
    for shift in (0.0, 0.5):
        tests = [judge(e + shift, 0.05) for e in gaussian([2.0, 1.0, 1.0, 0.2, 0.1, 0.0], (200, 30), 4)]
        found = np.array([t.bias_squared for t in tests])
        assert stats.ttest_1samp(found, 6 * shift**2).pvalue > CALIBRATION
        stated = math.sqrt(np.mean([t.bias_squared_error**2 for t in tests]))
        ratio = found.std(ddof=1) / stated
        assert (0.5 if shift == 0 else 0.75) < ratio < 1.25


@pytest.mark.usefixtures("unchecked")
def test_power_at_the_stated_size_for_many_spectra():
    """z given the pilot is exactly normal here, so power is an average of noncentral t tails: no sampling of z."""
    random = np.random.default_rng(5)
    cases = [([1.0], [1.0]), ([1.0, 0.0], [0.0, 1.0]), ([1.0, 0.2], [1.0, 0.3]), ([1.0] * 50, [1.0] * 50)]
    for _ in range(60):
        size = int(random.integers(1, 12))
        spectrum = random.random(size) ** random.integers(1, 8)
        cases.append((spectrum, random.standard_normal(size) * spectrum ** random.uniform(0, 3)))
    for level in (0.01, 1e-3, 1e-6):
        for draws in (60, 200, 2000):
            assert min(power(*case, level, draws, random) for case in cases) > 0.985
    # not by a wide margin where the bound is attained, and not with half the bias
    assert power([1.0], [1.0], 1e-3, 200, random) < 0.995
    assert power([1.0], [1.0], 1e-3, 200, random, factor=0.5) < 0.5


def power(spectrum, direction, level, draws, random, factor=1.0) -> float:
    """Probability of rejection at `factor` times the stated bias, averaged over 2000 pilots."""
    eigenvalues = np.asarray(spectrum, dtype=float)
    unit = np.asarray(direction, dtype=float) / np.linalg.norm(direction)
    pilot, rest = draws // 2, draws - draws // 2
    size = factor * min_detectable_bias(level, draws, std=float(np.linalg.norm(eigenvalues)))
    found = size * unit + random.standard_normal((2000, len(unit))) * np.sqrt(eigenvalues / pilot)
    shift = math.sqrt(rest) * size * (found @ unit) / np.sqrt((found**2 * eigenvalues).sum(1))
    critical = stats.t.isf(level, rest - 1)
    # noncentral t by its normal approximation, exact enough at these sizes
    scale = math.sqrt(1 + critical**2 / (2 * (rest - 1)))
    return float(stats.norm.cdf((shift - critical * (1 - 1 / (4 * (rest - 1)))) / scale).mean())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spectrum", [[1.0, 0, 0, 0, 0, 0], [1.0] * 6, [1.0, 0.3, 0.1, 0.03, 0.01, 0.0]])
@pytest.mark.parametrize("where", ["along the noise", "random"])
def test_a_bias_of_the_stated_size_is_rejected(spectrum, where):
    level, shape = 1e-3, (100, 60)
    stated = float(np.median([judge(e, level).detectable for e in gaussian(spectrum, (20, 60), 6)]))
    direction = torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    if where == "random":
        direction = torch.randn(6, dtype=torch.float64, generator=seeded(7))
    bias = (stated * direction / direction.norm()).unflatten(0, (2, 3))
    found = sum(judge(e + bias, level).rejected for e in gaussian(spectrum, shape, 8))
    assert stats.binomtest(found, shape[0], 0.99, alternative="less").pvalue > POWER
    few = sum(judge(e + bias / 4, level).rejected for e in gaussian(spectrum, shape, 9))
    assert stats.binomtest(few, shape[0], 0.99, alternative="less").pvalue < POWER


@pytest.mark.usefixtures("unchecked")
def test_a_bias_along_the_target_of_the_stated_size_is_rejected():
    level, spectrum = 1e-3, [1.0] * 6
    stated = float(np.median([judge(e, level).detectable_along for e in gaussian(spectrum, (20, 60), 10)]))
    bias = stated * TARGET / TARGET.norm()
    tests = [judge(e + bias, level) for e in gaussian(spectrum, (100, 60), 11)]
    assert stats.binomtest(sum(t.rejected for t in tests), 100, 0.985, alternative="less").pvalue > POWER
    assert stats.ttest_1samp([t.along for t in tests], stated).pvalue > POWER


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spec", SOUND)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_sound_estimators_are_accepted(spec, dtype):
    x, dy = make_problem("gaussian", 20, 5, 4, generator=seeded(2), dtype=dtype)
    level = share("mean test: sound estimators", 2 * len(SOUND))
    outcome = mean_test(make(spec), x, dy, draws=800, level=level, generator=seeded(3))
    assert not outcome.rejected, outcome


class Shrunk(CRS):
    """CRS times a constant: a relative bias of known size along the target."""

    name = "shrunk"

    def contract(self, saved, dy):
        return super().contract(saved, dy) * 0.8


class DroppedRow(CRS):
    """The second largest row gets no weight when it is drawn."""

    name = "dropped_row"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        return plan._replace(weights=torch.where(plan.indices == scores.argsort()[-2], 0.0, plan.weights))


class OneEntry(CRS):
    """Off in a single entry."""

    name = "one_entry"

    def contract(self, saved, dy):
        product = super().contract(saved, dy)
        product[0, 0] += 30.0
        return product


class TimesKOverN(CRS):
    """The published defect: k/n times what it ought to be."""

    name = "times_k_over_n"

    def contract(self, saved, dy):
        return super().contract(saved, dy) * self.budget / dy.shape[0]


DEFECTS = (Shrunk(budget=10), DroppedRow(budget=10), OneEntry(budget=10), TimesKOverN(budget=10))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("defect", [*DEFECTS, WeightOffByK(budget=10)], ids=lambda d: d.name)
def test_planted_defects_are_rejected(defect):
    """Whatever has a bias above the stated size is rejected in 99 of 100 samples."""
    x, dy = make_problem("gaussian", 20, 5, 4, generator=seeded(2))
    scores, generator = joint_norms(x, dy), seeded(12)
    tests = [
        mean_test(defect, x, dy, draws=300, level=1e-3, scores=scores, generator=generator) for _ in range(12)
    ]
    found = sum(t.rejected for t in tests)
    assert stats.binomtest(found, len(tests), 0.99, alternative="less").pvalue > POWER
    assert found >= 10


@pytest.mark.usefixtures("unchecked")
def test_a_bias_beside_the_target_is_seen_by_the_split_alone():
    x, dy = make_problem("gaussian", 20, 5, 4, generator=seeded(2))
    dy[:, 0] = 0.0  # so that the bias is orthogonal to the target
    outcome = mean_test(OneEntry(budget=10), x, dy, draws=2000, level=NULL_LEVEL, generator=seeded(3))
    assert outcome.along_p_value is not None
    assert outcome.along_p_value > NULL_LEVEL
    assert outcome.rejected
    assert outcome.any_p_value <= NULL_LEVEL / 2
    truth = 30.0 / float((dy.T @ x).norm())
    assert outcome.bias == pytest.approx(truth, rel=0.3)


def test_the_biased_baseline_is_rejected():
    x, dy = make_problem("gaussian", 20, 5, 4, generator=seeded(2))
    outcome = mean_test(make("topk(budget=6)"), x, dy, draws=4, level=1e-9, generator=seeded(3))
    assert outcome.rejected
    assert outcome.p_value == 0.0
    exact = dy.T @ x
    own_mean = make("topk(budget=6)").expectation(x, dy)
    assert outcome.bias == pytest.approx(float((own_mean - exact).norm() / exact.norm()))
    assert outcome.along == pytest.approx(float(((own_mean - exact) * exact).sum() / exact.square().sum()))
    assert outcome.bias_squared_error == pytest.approx(0.0, abs=1e-12)
    assert not mean_test(make("topk(budget=6)"), x, dy, draws=4, level=1e-9, target=own_mean).rejected


def test_zero_target():
    x, dy = torch.ones(4, 2, dtype=torch.float64), torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]).double()
    sound = mean_test(make("crs(budget=2)"), x, dy, draws=500, level=NULL_LEVEL, generator=seeded(1))
    assert not sound.rejected
    assert sound.along_p_value is None
    assert math.isinf(sound.detectable_along)
    assert mean_test(make("topk(budget=1)"), x, dy, draws=5, level=NULL_LEVEL).rejected


def test_rounding_is_allowed_for():
    """A bias of the size of the rounding is none; one well above it is found as without the allowance."""
    errors = gaussian([1e-8] * 6, (1, 400), 13)[0]
    stream = SplitDraws(TARGET, 400)
    for error in errors:
        stream.add(TARGET * 1.01 + error)
    size = 0.01 * float(TARGET.norm())
    assert mean_verdict(stream, 1e-3, unit=1.0, rounding=0.0).rejected
    assert not mean_verdict(stream, NULL_LEVEL, unit=1.0, rounding=1.01 * size).rejected
    assert mean_verdict(stream, 1e-3, unit=1.0, rounding=0.5 * size).rejected
    assert mean_verdict(stream, 1e-3, unit=1.0, rounding=0.5 * size).detectable > 0.5 * size


def test_one_sample_without_skewness_is_the_t_test():
    values = np.array([-3.0, -1.0, -0.5, 0.5, 1.0, 3.0]) + 0.7
    found, expected = one_sample(values), stats.ttest_1samp(values, 0.0)
    assert found.p_value == pytest.approx(float(expected.pvalue))
    assert found.statistic == pytest.approx(float(expected.statistic))
    greater = one_sample(values, 0.2, side="greater")
    assert greater.p_value == pytest.approx(float(stats.ttest_1samp(values, 0.2, alternative="greater").pvalue))


def test_equal_numbers_tell_as_much_as_their_signs():
    """Few outcomes may give one value n times: 2^−n, as of the sign test, and 0 only where nothing can vary."""
    constant = [0.1] * 7
    assert one_sample(constant).p_value == 2.0**-6
    assert one_sample(constant, side="greater").p_value == 2.0**-7
    assert one_sample(constant, deterministic=True).p_value == 0.0
    assert one_sample([0.1, 0.1 + 1e-9] * 3, side="greater").p_value == 2.0**-6
    for null, rounding in ((0.1, 0.0), (0.0, 0.2)):
        for deterministic in (True, False):
            assert one_sample(constant, null, rounding=rounding, deterministic=deterministic).p_value == 1.0
    assert one_sample(constant, 0.2, side="greater", deterministic=True).p_value == 1.0


def test_memory_is_a_few_matrices():
    """Nothing is kept of a draw but numbers: the tensors alive after many draws are those after a few."""
    held = []
    for draws in (10, 200):
        stream = SplitDraws(TARGET, draws)
        for error in gaussian([1.0] * 6, (1, draws), 14)[0]:
            stream.add(TARGET + error)
        state = [*vars(stream).values(), *vars(stream.pairs).values()]
        held.append(sum(v.numel() for v in state if isinstance(v, Tensor)))
        assert all(v.numel() == 1 for values in state if isinstance(values, list) for v in values)
    assert held[0] == held[1]


def test_misuse_names_the_argument(unchecked):
    x = torch.ones(4, 2, dtype=torch.float64)
    exact = make("exact")
    for arguments, message in (
        ({"draws": 3, "level": 0.1}, "draws=3"),
        ({"draws": True, "level": 0.1}, "draws=True"),
        ({"draws": 5, "level": 0.0}, "level=0.0"),
        ({"draws": 5, "level": 0.1, "target": torch.ones(1, 2)}, "target must have shape"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            mean_test(exact, x, x, **arguments)
    with pytest.raises(InputError, match="NaN"):
        mean_test(exact, x, torch.full((4, 2), math.nan).double(), draws=5, level=0.1, target=torch.ones(2, 2))
    with pytest.raises(InputError, match="at least 2"):
        one_sample([1.0])
