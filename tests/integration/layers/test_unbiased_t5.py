"""E dW = dW through a whole T5: every converted layer, with padding, at one stated level for all.

One layer each of encoder and decoder has every kind of projection. The batch holds its examples eight times: gradients of
equal rows add up, and a draw from 240 rows tells much more of the mean than one from 30, at nearly the same cost.
"""

from __future__ import annotations

import pytest
from support.false_alarms import share
from support.mean_gradients import gradient_projections, gradients, repeated
from support.models import t5_batch, tiny_t5

from wtacrs.integration.layers.convert import approximate_
from wtacrs.validation.statistics.significance import ProjectionTest, mean_test_from_projections

DRAWS, COPIES = 64, 8
FOUND = 0.25
"""A bias of so much of ‖dW‖, in the dW of any one layer, is found with 99 % power."""

SPECS = ("crs(budget=0.5)", "wta_crs(budget=0.5)", 'wta_crs(budget=0.5, winners="optimal")')


def mean_test(spec: str, level: float, draws: int) -> ProjectionTest:
    """Projections of all weight gradients on fixed directions, corrected over layers and directions (Holm)."""
    model, batch = tiny_t5(layers=1), repeated(t5_batch(), COPIES)
    exact = gradients(model, batch)
    assert len(approximate_(model, spec, min_elements=0)) == 17
    return mean_test_from_projections(gradient_projections(model, exact, batch, draws), level, rounding=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_mean_gradient_of_every_layer_is_the_exact_one(unchecked: None, spec: str) -> None:
    test = mean_test(spec, share("t5: mean gradient", tests=len(SPECS)), DRAWS)
    assert not test.rejected, (spec, test.p_value, test.effect)
    assert test.detectable < FOUND


def test_a_biased_estimator_is_noticed(unchecked: None) -> None:
    """Top-k's mean is off by half of ‖G‖ in many layers, in every draw; the same test must see it."""
    assert mean_test("topk(budget=0.3)", 1e-7, 8).rejected
