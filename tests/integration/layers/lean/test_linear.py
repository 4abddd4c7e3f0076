"""Exact linear layers after something that has a recipe."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.lean_gradients import Kept, deviation, module_gradients
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from transformers.pytorch_utils import Conv1D

from wtacrs.integration import approximate_, lean_
from wtacrs.integration.layers.lean.linear import LinearOfRecipe


def layer(kind: str, bias: bool = True) -> nn.Module:
    return Conv1D(12, 8) if kind == "conv1d" else nn.Linear(8, 12, bias=bias)


def after_norm(last: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(8), nn.Dropout(0.2), last).train()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["linear", "no bias", "conv1d"])
def test_gradients_and_bytes(kind: str, dtype: torch.dtype, generator: torch.Generator) -> None:
    model = after_norm(layer(kind, bias=kind != "no bias")).to(dtype)
    x = torch.randn(4, 20, 8, generator=generator, dtype=torch.float64).to(dtype)
    known = module_gradients(model, x)
    assert len(lean_(model)) == 3
    assert deviation(module_gradients(model, x), known) <= (1e-12 if dtype == torch.float64 else 1e-6)
    bits, per_row, of_norm = 640 // 8, 2 * 80, 2 * 8
    assert Kept(model, lambda: model(x).sum(), [x]).total == bits + (per_row + of_norm) * x.itemsize


def test_layers_that_read_one_input_keep_it_once(generator: torch.Generator) -> None:
    class Projections(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.RMSNorm(8, eps=1e-6)
            self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            return self.q(y) + self.k(y.view(-1, 8)).view(y.shape) + self.v(y)

    model, x = Projections().train(), torch.randn(4, 20, 8, generator=generator)
    known = module_gradients(model, x)
    before = Kept(model, lambda: model(x).sum(), []).total
    lean_(model)
    assert deviation(module_gradients(model, x), known) <= 1e-6
    kept = Kept(model, lambda: model(x).sum(), [])
    assert kept.total == x.nbytes + 4 * 80 + 4 * 8 < before
    assert ("LeanLinear", "LeanRMSNorm") in kept.by_owners


def test_an_output_changed_in_place_is_kept_itself(generator: torch.Generator) -> None:
    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            y[:, :2] = 0.0
            return self.out(y.mul_(3.0))

    model, x = Changed().train(), torch.randn(9, 8, generator=generator)
    known = module_gradients(model, x)
    lean_(model)
    assert deviation(module_gradients(model, x), known) <= 1e-6


def test_an_optimizer_that_steps_within_the_backward_pass(generator: torch.Generator) -> None:
    """The norm's bias has changed before the layer makes its input again."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.one = nn.LayerNorm(8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(self.norm(x))

    found = []
    x = torch.randn(9, 8, generator=generator)
    for lean in (False, True):
        torch.manual_seed(0)
        model = Model().train()
        if lean:
            lean_(model)
        y = model(x)
        with torch.no_grad():
            model.norm.bias.add_(1.0)  # the norm keeps no bias, so autograd allows it
        found.append(torch.autograd.grad(y.sum(), model.one.weight)[0])
    assert torch.allclose(*found, rtol=1e-5, atol=1e-6)


def test_frozen_layers_keep_nothing(generator: torch.Generator) -> None:
    model = after_norm(nn.Linear(8, 12))
    model[2].requires_grad_(False)
    lean_(model)
    x = torch.randn(30, 8, generator=generator)
    assert "2.weight" not in module_gradients(model, x)
    kept = Kept(model, lambda: model(x).sum(), [x])
    assert all("LeanLinear" not in owners for owners in kept.by_owners)


@pytest.mark.parametrize("order", ["lean first", "lean last", "at once"])
def test_small_inputs_of_estimated_layers_take_recipes(order: str, generator: torch.Generator) -> None:
    model = after_norm(nn.Linear(8, 12))
    x = torch.randn(30, 8, generator=generator)
    known = module_gradients(model, x)
    if order == "lean first":
        lean_(model)
    approximate_(model, "wta_crs(budget=0.3)", lean=order == "at once")
    if order == "lean last":
        lean_(model)
    assert deviation(module_gradients(model, x), known) <= 1e-6
    assert Kept(model, lambda: model(x).sum(), [x]).total == 240 // 8 + (60 + 16) * 4


@pytest.mark.parametrize("estimated", [False, True])
def test_a_parametrization_after_the_conversion_is_asked_as_often(
    estimated: bool, generator: torch.Generator
) -> None:
    """Spectral norm takes a step of its power iteration at every access to the weight."""
    x, found = torch.randn(30, 8, generator=generator), []
    for lean in (False, True):
        torch.manual_seed(0)
        model = after_norm(nn.Linear(8, 12))
        if estimated:
            approximate_(model, "wta_crs(budget=0.3)")
        if lean:
            lean_(model)
        torch.manual_seed(2)
        parametrizations.spectral_norm(model[2])
        found.append(module_gradients(model, x))
    assert deviation(found[1], found[0]) <= 1e-6


def test_autocast_reads_the_input_as_the_stock_layer(generator: torch.Generator) -> None:
    model, x = after_norm(nn.Linear(8, 12)), torch.randn(30, 8, generator=generator)
    found = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            found.append(module_gradients(model, x))
        lean_(model)
    assert found[1]["y"].dtype == torch.bfloat16
    assert deviation(found[1], found[0]) <= 1e-2


def test_the_tests_find_a_wrong_derivative(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    model, x = after_norm(nn.Linear(8, 12)), torch.randn(30, 8, generator=generator)
    known = module_gradients(model, x)
    lean_(model)
    right = LinearOfRecipe.backward

    def wrong(ctx: Any, dy: Tensor) -> Any:
        dx, dw, *others = right(ctx, dy)
        return dx, dw * 1.0001, *others

    monkeypatch.setattr(LinearOfRecipe, "backward", staticmethod(wrong))
    assert deviation(module_gradients(model, x), known) > 5e-5


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("estimated", [False, True], ids=["exact", "estimated"])
@pytest.mark.parametrize("kind", ["pruned", "weight norm", "spectral norm"])
def test_a_weight_that_is_computed_by_a_hook_stays_that_of_the_stock_layer(
    kind: str, estimated: bool, first: bool
) -> None:
    """Pruning and the older norms replace the parameter by another name; the weight is computed as often as in stock."""
    change: Any = {
        "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        "weight norm": nn.utils.weight_norm,
        "spectral norm": nn.utils.spectral_norm,
    }[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = [nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4)) for _ in range(2)]
        models[1].load_state_dict(models[0].state_dict())
        for model in models:
            torch.manual_seed(1)
            if model is models[1] or first:
                change(model[2])
            if model is models[0]:
                lean_(model)
                if estimated:
                    approximate_(model, "crs(budget=0.5)", min_elements=10**9)
                torch.manual_seed(1)
                if not first:
                    change(model[2])
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    for model in models:
        model(x).sum().backward()
    for (name, mine), (_, stock) in zip(*(sorted(model.named_parameters()) for model in models), strict=True):
        torch.testing.assert_close(mine.grad, stock.grad, msg=name)
