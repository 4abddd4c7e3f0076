"""The counter-based generator: the bits of its twin, the distributions it states, nothing shared by neighbours."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support import naive_sketches as naive
from support.false_alarms import share
from torch import Tensor

from wtacrs.estimators.core.counter_rng import CounterStream, mix64, new_seed

SEEDS = (0, 1, 2**62 - 1)
NUMBERS = 200_000
# every statistical test in this file, counted by hand: 3 seeds × (2 + 2 + 64) + 1 + 6 + 64 + 1 + 1
TESTS = 3 * 68 + 73
LEVEL = share("counter generator", TESTS)


def stream(seed: int) -> CounterStream:
    return CounterStream(torch.tensor([seed]))


def counters(n: int) -> Tensor:
    return torch.arange(n)


def assert_mean(sample: Tensor, mean: float, deviation: float) -> None:
    """Two-sided test of a mean by its normal approximation, for large samples of light tails."""
    z = abs(float(sample.double().mean()) - mean) * math.sqrt(sample.numel()) / deviation
    assert 2 * stats.norm.sf(z) > LEVEL


def correlation_p(a: Tensor, b: Tensor) -> float:
    r = float(torch.corrcoef(torch.stack([a, b]))[0, 1])
    return float(2 * stats.norm.sf(abs(r) * math.sqrt(a.numel())))


def digit(number: Tensor, place: int) -> Tensor:
    return ((number >> place) & 1).double()


@given(st.integers(0, 2**62 - 1), st.integers(0, 5), st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
def test_equals_its_twin(seed: int, number: int, places: list[int]) -> None:
    got = stream(seed)
    where = torch.tensor(places)
    assert [b % 2**64 for b in got.bits(number, where).tolist()] == [naive.bits(seed, number, c) for c in places]
    assert got.uniforms(number, where).tolist() == [naive.uniform(seed, number, c) for c in places]
    assert got.signs(number, where).tolist() == [naive.sign(seed, number, c) for c in places]
    expected = [naive.normal(seed, number, c) for c in places]
    assert got.normals(number, where).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_shapes_follow_the_counters() -> None:
    grid = counters(12).reshape(3, 4)
    assert torch.equal(stream(5).bits(0, grid).flatten(), stream(5).bits(0, grid.flatten()))


@pytest.mark.parametrize("seed", SEEDS)
def test_distributions(seed: int) -> None:
    got = stream(seed)
    assert stats.kstest(got.uniforms(0, counters(NUMBERS)).numpy(), "uniform").pvalue > LEVEL
    assert stats.kstest(got.normals(0, counters(NUMBERS)).numpy(), "norm").pvalue > LEVEL
    z = got.normals(1, counters(NUMBERS))
    assert_mean(z.square(), 1.0, math.sqrt(2))
    assert_mean(z.pow(4), 3.0, math.sqrt(96))
    bits = got.bits(0, counters(NUMBERS))
    for place in range(64):
        assert_mean(digit(bits, place), 0.5, 0.5)


def test_integers_are_uniform() -> None:
    found = torch.bincount(stream(3).integers(1, counters(NUMBERS), 7), minlength=7)
    assert found.shape == (7,)
    assert stats.chisquare(found.numpy()).pvalue > LEVEL


@pytest.mark.parametrize("first", [0, 12345])
@pytest.mark.parametrize("kind", ["seed", "stream", "counter"])
def test_neighbours_have_nothing_in_common(kind: str, first: int) -> None:
    here = stream(first).uniforms(0, counters(NUMBERS))
    other = {
        "seed": stream(first + 1).uniforms(0, counters(NUMBERS)),
        "stream": stream(first).uniforms(1, counters(NUMBERS)),
        "counter": stream(first).uniforms(0, counters(NUMBERS) + 1),
    }[kind]
    assert correlation_p(here, other) > LEVEL


@pytest.mark.usefixtures("unchecked")
def test_successive_seeds_give_successive_numbers_no_order() -> None:
    """One number under each of many neighbouring seeds is as good a sample as many numbers under one seed."""
    numbers = torch.cat([stream(seed).uniforms(0, torch.tensor([7])) for seed in range(4000)])
    assert stats.kstest(numbers.numpy(), "uniform").pvalue > LEVEL


def test_every_input_bit_moves_half_of_the_output() -> None:
    inputs = stream(11).bits(0, counters(400))
    for place in range(64):
        flipped = mix64(inputs) ^ mix64(inputs ^ (1 << place if place < 63 else -(2**63)))
        changed = torch.stack([digit(flipped, j) for j in range(64)])
        assert_mean(changed, 0.5, 0.5)


def test_no_number_twice() -> None:
    assert stream(0).bits(0, counters(1_000_000)).unique().numel() == 1_000_000


@pytest.mark.usefixtures("unchecked")
def test_subsets_are_equally_likely_and_stay_inside() -> None:
    allowed = torch.tensor([True, False, True, True, True, False])
    found: dict[tuple[int, ...], int] = {}
    for seed in range(6000):
        chosen = tuple(stream(seed).subset(0, allowed, 2).tolist())
        found[chosen] = found.get(chosen, 0) + 1
    assert len(found) == 6
    assert all(allowed[list(chosen)].all() and chosen[0] < chosen[1] for chosen in found)
    assert stats.chisquare(list(found.values())).pvalue > LEVEL
    everything = stream(0).subset(0, allowed, 5).tolist()
    assert {0, 2, 3, 4} < set(everything)


class Extreme(CounterStream):
    """All bits equal."""

    def bits(self, stream: int, counters: Tensor) -> Tensor:
        return torch.where(counters > 0, -1, 0)


def test_the_ends_of_the_range_are_safe() -> None:
    ends = Extreme(torch.tensor([0]))
    where = torch.tensor([0, 1])
    assert ends.uniforms(0, where).tolist() == [0.0, 1 - 2.0**-53]
    assert ends.normals(0, where).abs().tolist() == pytest.approx([8.2095, 8.2095], abs=1e-3)
    assert ends.signs(0, where).tolist() == [1.0, -1.0]
    for bound in (1, 7, 2**40):
        assert ends.integers(0, where, bound).tolist() == [0, bound - 1]


def test_seeds_come_from_the_generator() -> None:
    first, second = (new_seed(torch.device("cpu"), torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.int64
    assert first.shape == (1,)
