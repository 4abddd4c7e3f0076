"""`min_elements` is refused by name wherever it enters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.models import bert_batch, tiny_bert
from torch import nn

from wtacrs.estimators import InputError
from wtacrs.integration.layers.conv1d import ApproxConv1D
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.integration.measure.coverage import coverage
from wtacrs.integration.measure.memory import step_memory
from wtacrs.integration.training.callback import WtacrsCallback

SPEC = "crs(budget=0.3)"
WAYS: dict[str, Any] = {
    "approximate_": lambda value: approximate_(nn.Linear(4, 4), SPEC, min_elements=value),
    "ApproxLinear": lambda value: ApproxLinear(4, 4, estimator=SPEC, min_elements=value),
    "ApproxConv1D": lambda value: ApproxConv1D(4, 4, estimator=SPEC, min_elements=value),
    "WtacrsCallback": lambda value: WtacrsCallback(SPEC, min_elements=value),
    "coverage": lambda value: coverage(nn.Linear(4, 4), min_elements=value),
    "step_memory, exact": lambda value: step_memory(tiny_bert(), bert_batch(), min_elements=value),
    "step_memory": lambda value: step_memory(tiny_bert(), bert_batch(), estimator=SPEC, min_elements=value),
}


@pytest.mark.parametrize("value", [None, -1, True, 0.0, 1e3, "0", np.float64(8), np.int64(-2)])
@pytest.mark.parametrize("way", WAYS)
def test_no_integer_from_0(way: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        WAYS[way](value)
    assert str(caught.value) == f"min_elements={value!r} must be an integer from 0"


@pytest.mark.parametrize("way", WAYS)
def test_integers_of_numpy_are_integers(way: str) -> None:
    WAYS[way](np.int64(12))


def test_a_refused_model_is_unchanged_and_an_accepted_one_has_pythons_integer() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(InputError):
        approximate_(model, SPEC, min_elements=None)  # type: ignore[arg-type]
    assert type(model[0]) is nn.Linear
    assert not model._forward_pre_hooks
    approximate_(model, SPEC, min_elements=np.int32(12))  # type: ignore[arg-type]
    assert isinstance(model[0], EstimatedWeightGrad)
    assert type(model[0].min_elements) is int
    restore_(model)
