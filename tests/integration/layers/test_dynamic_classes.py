"""Parametrizations, hooks and pruning, before a conversion and after: the layer works, and is stock in the end."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed._composable.replicate import DDP
from torch.distributed.fsdp import FSDPModule
from torch.nn.utils import (
    parametrizations,
    parametrize,
    prune,
    remove_spectral_norm,
    remove_weight_norm,
    spectral_norm,
    weight_norm,
)
from transformers.pytorch_utils import Conv1D

from wtacrs.integration.layers.conv1d import ApproxConv1D
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.dynamic_classes import own_class, set_class
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.layers.linear import ApproxLinear

ALL_ROWS = "topk(budget=1.0)"
"""Keeps every row: what training computes is that of the stock layer."""

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


class Symmetric(nn.Module):
    """Reads the upper triangle."""

    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).mT

    def right_inverse(self, x: Tensor) -> Tensor:
        return x.triu()


def symmetric(layer: nn.Module) -> None:
    parametrize.register_parametrization(layer, "weight", Symmetric())


def on_the_bias(layer: nn.Module) -> None:
    parametrize.register_parametrization(layer, "bias", nn.Tanh(), unsafe=True)


def two_of_them(layer: nn.Module) -> None:
    symmetric(layer)
    on_the_bias(layer)


def remove(*names: str) -> Callable[[Any], None]:
    def removed(layer: nn.Module) -> None:
        for name in names:
            parametrize.remove_parametrizations(layer, name)

    return removed


Change = Callable[[Any], Any]
PARAMETRIZATIONS: dict[str, tuple[Change, Change]] = {
    "symmetric": (symmetric, remove("weight")),
    "bias": (on_the_bias, remove("bias")),
    "two": (two_of_them, remove("bias", "weight")),
    "weight norm": (parametrizations.weight_norm, remove("weight")),
    "spectral norm": (parametrizations.spectral_norm, remove("weight")),
    "orthogonal": (parametrizations.orthogonal, remove("weight")),
}
HOOKS: dict[str, tuple[Change, Change]] = {
    "weight norm": (weight_norm, remove_weight_norm),
    "spectral norm": (spectral_norm, remove_spectral_norm),
    "prune": (
        lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
        lambda layer: prune.remove(layer, "weight"),
    ),
}


def network(kind: str = "Linear") -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Linear(8, 8) if kind == "Linear" else Conv1D(8, 8)
    return nn.Sequential(first, nn.Tanh(), nn.Linear(8, 3)).double()


def step(model: nn.Module) -> list[Tensor]:
    """Output, and gradients in a fixed order."""
    model.zero_grad()
    x = torch.randn(12, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    output = model(x)
    output.square().sum().backward()
    return [output, *(p.grad for _, p in sorted(model.named_parameters()) if p.grad is not None)]


def assert_alike(ours: nn.Module, stock: nn.Module) -> None:
    for mine, theirs in zip(step(ours), step(stock), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kind", ["Linear", "Conv1D"])
@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_a_parametrization_registered_after_the_conversion(name: str, kind: str) -> None:
    register, take_off = PARAMETRIZATIONS[name]
    model, stock = network(kind), network(kind)
    approximate_(model, ALL_ROWS, min_elements=0)
    for one in (model, stock):
        torch.manual_seed(2)
        register(one[0])
    assert_alike(model, stock)
    assert restore_(model) == ["0", "2"]
    assert type(model[0]).__name__ == type(stock[0]).__name__
    assert not isinstance(model[0], EstimatedWeightGrad)
    assert vars(model[0]).keys() == vars(stock[0]).keys()
    assert_alike(model, stock)
    take_off(model[0]), take_off(stock[0])
    assert type(model[0]) is type(stock[0]) is (nn.Linear if kind == "Linear" else Conv1D)
    assert_alike(model, stock)
    assert approximate_(model, ALL_ROWS, min_elements=0) == ["0", "2"]
    assert_alike(model, stock)


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_a_parametrization_removed_before_the_layer_is_stock(name: str) -> None:
    register, take_off = PARAMETRIZATIONS[name]
    model = network()
    approximate_(model, ALL_ROWS, min_elements=0)
    register(model[0])
    take_off(model[0])
    assert type(model[0]) is ApproxLinear
    step(model)
    restore_(model)
    assert type(model[0]) is nn.Linear
    step(model)


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_a_parametrized_layer_stays_exact_and_is_told(name: str) -> None:
    register, _ = PARAMETRIZATIONS[name]
    model, stock = network(), network()
    for one in (model, stock):
        torch.manual_seed(2)
        register(one[0])
    with pytest.warns(UserWarning, match="most linear work stays exact"):
        found = approximate_(model, "crs(budget=0.2)", min_elements=0)
    assert found == ["2"]
    assert found.exact == {"0": "parametrized: its weight is computed anew at every access"}
    assert torch.equal(step(model)[0], step(stock)[0])  # power iterations of the spectral norm among them
    assert restore_(model) == ["2"]


def test_one_that_was_parametrized_since_is_given_up_by_the_next_conversion() -> None:
    model = network()
    approximate_(model, ALL_ROWS, min_elements=0)
    symmetric(model[0])
    step(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert approximate_(model, ALL_ROWS, min_elements=0) == ["2"]
    assert not isinstance(model[0], EstimatedWeightGrad)
    step(model)
    parametrize.remove_parametrizations(model[0], "weight")
    assert type(model[0]) is nn.Linear


def test_a_second_parametrization_after_the_layer_is_stock_again() -> None:
    """No class of before is brought back, which would lack the second one's property."""
    model = network()
    approximate_(model, ALL_ROWS)
    symmetric(model[0])
    restore_(model)
    on_the_bias(model[0])
    remove("weight")(model[0])
    step(model)
    remove("bias")(model[0])
    assert type(model[0]) is nn.Linear


def test_copies_of_a_parametrized_layer_are_restored_each_by_itself() -> None:
    model = network()
    approximate_(model, ALL_ROWS, min_elements=0)
    symmetric(model[0])
    twin = copy.deepcopy(model)
    restore_(twin)
    parametrize.remove_parametrizations(twin[0], "weight")
    assert type(twin[0]) is nn.Linear
    assert isinstance(model[0], ApproxLinear)
    step(model)
    restore_(model)
    step(model)


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("name", HOOKS)
def test_weights_that_a_hook_computes_are_estimated(name: str, order: str) -> None:
    put_on, take_off = HOOKS[name]
    model, stock = network(), network()
    for one in (model, stock):
        torch.manual_seed(2)
        if order == "before":
            put_on(one[0])
        if one is model:
            assert approximate_(model, ALL_ROWS, min_elements=0).estimated == ["0", "2"]
        if order == "after":
            put_on(one[0])
    assert_alike(model, stock)
    assert restore_(model) == ["0", "2"]
    assert_alike(model, stock)
    take_off(model[0]), take_off(stock[0])
    assert type(model[0]) is nn.Linear
    assert_alike(model, stock)


def marked(kind: type, marker: type = FSDPModule) -> type:
    """As `fully_shard` and `replicate` make it, without processes."""
    return type(f"FSDP{kind.__name__}", (marker, kind), {"__deepcopy__": None})


@pytest.mark.parametrize("marker", [FSDPModule, DDP])
def test_all_modules_of_one_class_get_one_class(marker: type) -> None:
    kind = marked(nn.Linear, marker)
    layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
    for layer in layers:
        layer.__class__ = kind
        set_class(layer, ApproxLinear)
    assert type(layers[0]) is type(layers[1])
    assert type(layers[0]).__bases__ == (marker, ApproxLinear)
    for layer in layers:
        set_class(layer, nn.Linear)
        assert type(layer) is kind


def test_classes_in_front_of_one_another() -> None:
    """Sharded, then parametrized; the own class behind both is exchanged, and both come back."""
    layer = nn.Linear(4, 4)
    sharded = marked(nn.Linear)
    layer.__class__ = sharded
    parametrize.register_parametrization(layer, "weight", Symmetric())
    before = type(layer).__name__
    assert own_class(layer) is nn.Linear
    set_class(layer, ApproxLinear)
    assert own_class(layer) is ApproxLinear
    assert type(layer).__name__ == "ParametrizedFSDPApproxLinear"
    assert isinstance(layer, FSDPModule)
    assert torch.equal(layer.weight, layer.weight.mT)
    set_class(layer, nn.Linear)
    assert type(layer).__name__ == before
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is sharded
    assert own_class(nn.Conv2d(1, 1, 1)) is nn.Conv2d
    set_class(layer, ApproxConv1D)
    assert type(layer).__name__ == "FSDPApproxConv1D"


def test_a_class_that_somebody_wrote_is_the_own_one() -> None:
    class Mine(nn.Linear):
        def __getstate__(self) -> dict[str, Any]:
            return {}

    assert own_class(Mine(2, 2)) is Mine
