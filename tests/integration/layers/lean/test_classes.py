"""Lean modules stay what they were: instances, parameters, hooks, keys; and can be copied and pickled."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from support.lean_gradients import module_gradients
from support.models import tiny_t5
from torch import nn
from transformers.models.t5.modeling_t5 import T5LayerNorm

from wtacrs.integration import lean_, restore_
from wtacrs.integration.layers.lean.classes import LeanModule, lean_class, stock_class
from wtacrs.integration.layers.lean.norm import LeanRMSNorm


def test_a_lean_class_is_made_once_and_derives_from_the_stock_one() -> None:
    kind = lean_class(LeanRMSNorm, T5LayerNorm)
    assert kind is lean_class(LeanRMSNorm, T5LayerNorm)
    assert issubclass(kind, T5LayerNorm)
    assert kind.__name__ == "LeanT5LayerNorm"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_lean_and_can_be_restored(copied: object, generator: torch.Generator) -> None:
    model = nn.Sequential(T5LayerNorm(8), nn.Dropout(0.2), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 2)).train()
    x = torch.randn(9, 8, generator=generator)
    lean_(model)
    other = copied(model)
    assert [type(module) for module in other] == [type(module) for module in model]
    known, found = module_gradients(model, x), module_gradients(other, x)
    assert all(torch.equal(found[name], value) for name, value in known.items())
    assert restore_(other) == list("01234")
    assert [type(module) for module in other] == [T5LayerNorm, nn.Dropout, nn.Linear, nn.GELU, nn.Linear]
    assert isinstance(model[0], LeanModule)


def test_in_place_and_back() -> None:
    model = tiny_t5(dropout=0.1)
    before = {name: (type(module), dict(vars(module))) for name, module in model.named_modules()}
    parameters, keys = list(model.parameters()), list(model.state_dict())
    names = lean_(model)
    assert all(isinstance(model.get_submodule(name), (LeanModule, before[name][0])) for name in names)
    assert all(stock_class(module) is before[name][0] for name, module in model.named_modules())
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict()) == keys
    assert restore_(model) == names
    assert restore_(model) == []
    for name, module in model.named_modules():
        assert type(module) is before[name][0]
        assert vars(module).keys() == before[name][1].keys()
