"""Dropout of a lean model is that of the stock one, element by element."""

from __future__ import annotations

import pytest
import torch
from support.lean_gradients import SEED, Kept, module_gradients
from torch import nn

from wtacrs.integration import lean_


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_output_gradient_and_random_state_bit_by_bit(
    p: float, dtype: torch.dtype, generator: torch.Generator
) -> None:
    for x in (
        torch.randn(5, 31, generator=generator).to(dtype),
        torch.randn(9, 6, generator=generator).to(dtype).t(),
        torch.randn(4, 1, generator=generator).to(dtype).expand(4, 50),
    ):
        module = nn.Sequential(nn.Dropout(p)).train()
        known = module_gradients(module, x)
        after = torch.random.get_rng_state()
        lean_(module)
        found = module_gradients(module, x)
        assert torch.equal(found["y"], known["y"])
        assert torch.equal(found["x"], known["x"])
        assert torch.equal(torch.random.get_rng_state(), after)
        assert 0 < (found["y"] == 0).sum() < x.numel()


def test_bits_are_kept_and_nothing_else(generator: torch.Generator) -> None:
    module = nn.Sequential(nn.Dropout(0.1)).train()
    x = torch.randn(16, 32, generator=generator).requires_grad_()
    assert Kept(module, lambda: module(x).sum(), []).total == 4 * x.numel()
    lean_(module)
    assert Kept(module, lambda: module(x).sum(), []).total == x.numel() // 8


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_or_everything_dropped(p: float, generator: torch.Generator) -> None:
    module = nn.Sequential(nn.Dropout(p)).train()
    x = torch.randn(4, 8, generator=generator)
    known = module_gradients(module, x)
    lean_(module)
    assert all(torch.equal(value, known[name]) for name, value in module_gradients(module, x).items())


def test_stock_without_gradients_and_in_eval_mode(generator: torch.Generator) -> None:
    module, x = nn.Sequential(nn.Dropout(0.3)).train(), torch.randn(8, 8, generator=generator)
    torch.manual_seed(SEED)
    known = module(x)
    lean_(module)
    torch.manual_seed(SEED)
    assert torch.equal(module(x), known)  # x needs no gradient
    with torch.no_grad():
        torch.manual_seed(SEED)
        assert torch.equal(module(x), known)
    assert module.eval()(x) is x


def test_an_infinite_gradient_is_treated_as_by_the_stock_layer(generator: torch.Generator) -> None:
    x, dy = torch.randn(64, generator=generator), torch.full((64,), torch.inf)
    found = []
    module = nn.Sequential(nn.Dropout(0.5)).train()
    for _ in range(2):
        leaf = x.clone().requires_grad_()
        torch.manual_seed(SEED)
        found.append(torch.autograd.grad(module(leaf), leaf, dy)[0])
        lean_(module)
    assert torch.equal(found[0].isnan(), found[1].isnan())
    assert found[0].isnan().any()
