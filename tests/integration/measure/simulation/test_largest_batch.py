"""The largest batch fits, and one example more does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.result_examples import simulation

from wtacrs.integration.measure.simulation.largest_batch import largest_batch
from wtacrs.validation.records.simulation import SimulatedStep


def step_of(peak: int) -> SimulatedStep:
    return simulation().steps[0].model_copy(update={"peak": peak})


@given(
    fixed=st.integers(0, 10**6),
    each=st.integers(1, 10**5),
    bend=st.integers(0, 10**5),
    budget=st.integers(1, 10**9),
)
def test_it_fits_and_one_more_does_not(fixed: int, each: int, bend: int, budget: int) -> None:
    def peak(batch_size: int) -> int:  # with a kink, as where another phase has the peak
        return max(fixed + each * batch_size, fixed // 2 + (each + bend) * batch_size)

    asked = []

    def simulate(batch_size: int) -> SimulatedStep:
        asked.append(batch_size)
        return step_of(peak(batch_size))

    step, found = largest_batch(simulate, budget)
    if found.batch_size == 0:
        assert peak(1) > budget
    elif found.batch_size < 2**20:
        assert peak(found.batch_size) <= budget < peak(found.batch_size + 1)
        assert step.peak == peak(found.batch_size)
        assert found.batch_size + 1 in asked
    assert len(asked) == len(set(asked))


def test_an_affine_step_needs_few_simulations() -> None:
    asked: list[Any] = []

    def simulate(batch_size: int) -> SimulatedStep:
        asked.append(batch_size)
        return step_of(4_000_000 + 1000 * batch_size)

    _, found = largest_batch(simulate, 4_123_456)
    assert (found.batch_size, found.fixed, found.each) == (123, 4_000_000, 1000)
    assert len(asked) <= 6


def test_a_budget_that_is_none_is_refused(unchecked: None) -> None:
    from wtacrs.estimators import InputError

    with pytest.raises(InputError, match="budget=0"):
        largest_batch(lambda _: step_of(1), 0)
