"""A subclass that draws in another way does not have the variance of its base."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from wtacrs.estimators import CRS, NoClosedForm, make
from wtacrs.validation.layers.captures import LayerCapture
from wtacrs.validation.layers.compare import ComparisonConfig, compare_layer
from wtacrs.validation.problems import make_problem
from wtacrs.validation.statistics.moments import refuse_inherited_forms


@dataclass(frozen=True, repr=False)
class Halved(CRS):
    """Every weight is half of what it should be, and the formulas say nothing of it."""

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        return plan._replace(weights=plan.weights / 2)


@dataclass(frozen=True, repr=False)
class Told(Halved):
    """The same with its own variance."""

    def variance(self, x, dy, *, scores=None):
        return super().variance(x, dy, scores=scores) / 4


def test_a_plan_of_its_own_is_measured() -> None:
    x, dy = make_problem("gaussian", 30, 4, 3, generator=torch.Generator().manual_seed(1))
    capture = LayerCapture(x, dy, torch.ones(30, dtype=torch.bool))
    config = ComparisonConfig(scores=("row-norms",), draws=400)
    halved, crs = (compare_layer("layer", capture, [one], config)[0] for one in (Halved(budget=8), CRS(budget=8)))
    assert (halved.method, crs.method) == ("monte carlo", "closed form")
    assert halved.bias_squared == pytest.approx(0.25, abs=6 * halved.bias_squared_error)
    assert halved.mse_of_mean > 0.2  # though its base is said to be unbiased
    assert crs.bias_squared < 1e-20
    assert halved.estimator == "Halved(budget=8)"


def test_whoever_states_a_variance_is_taken_at_its_word() -> None:
    for spec in ("crs(budget=2)", "systematic(budget=2)", "topk(budget=2)", "control_variate(rows=crs(budget=2))"):
        refuse_inherited_forms(make(spec))
    refuse_inherited_forms(Told(budget=2))
    with pytest.raises(NoClosedForm, match="Halved does not draw as CRS does"):
        refuse_inherited_forms(Halved(budget=2))
