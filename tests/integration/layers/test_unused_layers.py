"""Layers whose weight others read: found by their gradient, which nothing of theirs has made."""

from __future__ import annotations

import copy

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.config import VeloraConfig
from support.models import bert_batch, tiny_bert
from torch import Tensor, nn

from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.layers.unused_layers import exact_after_all

SPEC = "crs(budget=0.5)"


class Reads(nn.Module):
    """Calls one layer, reads the weight of another, and ties a third."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.inner, self.idle = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.embedding, self.tied = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
        self.tied.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        return nn.functional.linear(self.called(x), self.inner.weight @ self.frozen.weight)


def calls(model: nn.Module) -> set[str]:
    """A set that gets the path of every converted layer that is called."""
    found: set[str] = set()
    for layer in model.modules():
        if isinstance(layer, EstimatedWeightGrad):
            layer.register_forward_hook(lambda its, *_: found.add(its.path))
    return found


def test_a_weight_that_is_read_and_not_called_is_told() -> None:
    model = Reads()
    assert approximate_(model, SPEC, min_elements=0).estimated == ["called", "inner", "idle", "tied"]
    called = calls(model)
    assert exact_after_all(model, called) == []  # no gradient yet
    model(torch.arange(6)).sum().backward()
    assert called == {"called"}
    assert exact_after_all(model, called) == ["inner"]
    assert exact_after_all(copy.deepcopy(model), called) == []  # copies have no gradients
    model.zero_grad()
    assert exact_after_all(model, called) == []


def test_a_layer_that_was_called_once_is_not_told() -> None:
    model = Reads()
    approximate_(model, SPEC, min_elements=0)
    called = calls(model)
    model.inner(torch.randn(3, 4)).sum().backward()
    model(torch.arange(6)).sum().backward()
    assert exact_after_all(model, called) == []


def test_velora_of_peft_reads_every_a() -> None:
    config = LoraConfig(target_modules=["query", "value"], velora_config=VeloraConfig())
    model = get_peft_model(tiny_bert(), config).train()
    converted = approximate_(model, SPEC, min_elements=0)
    called = calls(model)
    model(**bert_batch()).loss.backward()
    assert exact_after_all(model, called) == converted.estimated != []
    stock = get_peft_model(tiny_bert(), LoraConfig(target_modules=["query", "value"])).train()
    approximate_(stock, SPEC, min_elements=0)
    called = calls(stock)
    stock(**bert_batch()).loss.backward()
    assert exact_after_all(stock, called) == []
