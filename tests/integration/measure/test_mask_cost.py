"""The price of taking masks for hints: what is measured is run, and the closed form stays within its bound."""

from __future__ import annotations

import warnings

import pytest

from wtacrs.estimators.core.mask_floor import MASK_FLOOR
from wtacrs.integration.measure.mask_cost import SPECS, factors, main, time_shares


@pytest.mark.parametrize("spec", SPECS)
def test_the_floor_costs_no_more_than_its_bound(spec: str) -> None:
    for seed in range(3):
        found = factors(spec, n=256, seed=seed)
        assert 1 <= found.squared_weights <= 1 / (1 - MASK_FLOOR)
        assert 1 <= found.variance < 1.1


def test_times_are_those_of_a_layer_that_samples() -> None:
    cost = time_shares((32 * 16, 64, 32), SPECS[0], rounds=2)
    assert cost.forward > 0
    assert cost.backward > 0


def test_the_command_prints_both_prices(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("wtacrs.integration.measure.mask_cost.SHAPES", ((32 * 16, 64, 32),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is said of its own model
        assert main(["--rounds", "1"]) == 0
    told = capsys.readouterr().out
    assert "watch" in told
    assert "bound 1.0101" in told
