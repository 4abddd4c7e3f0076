"""E dW = dW through a whole T5: every converted layer, with padding, at one stated level for all."""

from __future__ import annotations

import pytest
from support.false_alarms import share
from support.mean_gradients import gradient_projections, gradients
from support.models import t5_batch, tiny_t5
from torch import Tensor, nn

from wtacrs.integration.layers.convert import approximate_
from wtacrs.validation.statistics.significance import mean_test_from_projections

DRAWS = 300


def converted(spec: str) -> tuple[nn.Module, dict[str, Tensor]]:
    model = tiny_t5()
    exact = gradients(model, t5_batch())
    approximate_(model, spec, min_elements=0)
    return model, exact


SPECS = ("crs(budget=0.3)", "wta_crs(budget=0.3)", 'wta_crs(budget=0.3, winners="optimal")')


@pytest.mark.parametrize("spec", SPECS)
def test_mean_gradient_of_every_layer_is_the_exact_one(spec: str) -> None:
    """Projections of all weight gradients on fixed directions, corrected over layers and directions (Holm)."""
    level = share("t5: mean gradient", tests=len(SPECS))
    test = mean_test_from_projections(
        gradient_projections(*converted(spec), t5_batch(), DRAWS), level, rounding=1e-5
    )
    assert not test.rejected, (spec, test.p_value, test.effect)


def test_a_biased_estimator_is_noticed() -> None:
    """Top-k's mean is off by half of ‖G‖ in many layers; the same test must see it."""
    test = mean_test_from_projections(
        gradient_projections(*converted("topk(budget=0.3)"), t5_batch(), DRAWS), 1e-7, rounding=1e-5
    )
    assert test.rejected
