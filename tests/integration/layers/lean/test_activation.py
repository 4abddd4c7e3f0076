"""Activations and gated products beside the stock ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.lean_gradients import Kept, deviation, module_gradients
from torch import Tensor, nn
from transformers.activations import ACT2FN

from wtacrs.integration import lean_
from wtacrs.integration.layers.lean.activation import (
    ACTIVATIONS,
    AwaitingProduct,
    Gated,
    QuickGELU,
    ReLU,
    SquaredReLU,
)

KNOWN = ("relu", "relu2", "gelu", "gelu_new", "gelu_pytorch_tanh", "silu", "quick_gelu", "mish", "hardswish")


class GatedBlock(nn.Module):
    """A gated feed-forward part that no library knows."""

    def __init__(self, act: nn.Module, d: int = 12, width: int = 20) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(d, width), nn.Linear(d, width), nn.Linear(width, d)
        self.act, self.dropout = act, nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.dropout(self.two(x) * self.act(self.one(x))))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", KNOWN)
def test_output_and_gradient(name: str, dtype: torch.dtype, generator: torch.Generator) -> None:
    module = nn.Sequential(ACT2FN[name]).train()
    x = (torch.randn(7, 90, generator=generator, dtype=torch.float64) * 3).to(dtype)
    known = module_gradients(module, x)
    assert lean_(module).found
    assert deviation(module_gradients(module, x), known) <= (1e-12 if dtype == torch.float64 else 2e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_known_function_has_its_derivative(name: str, generator: torch.Generator) -> None:
    x = torch.randn(200, generator=generator, dtype=torch.float64) * 3
    found = torch.func.vmap(torch.func.grad(ACTIVATIONS[name].value))(x)
    leaf = x.clone().requires_grad_()
    y = ACTIVATIONS[name].apply(leaf)
    assert torch.allclose(y, ACTIVATIONS[name].value(x), rtol=1e-14)
    y.sum().backward()
    assert torch.allclose(leaf.grad, found, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("function", [ReLU, QuickGELU, SquaredReLU, Gated])
def test_the_tests_find_a_wrong_derivative(
    function: type, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    act = {ReLU: nn.ReLU(), QuickGELU: ACT2FN["quick_gelu"], SquaredReLU: ACT2FN["relu2"], Gated: nn.SiLU()}[
        function
    ]
    module, x = GatedBlock(act).train(), torch.randn(9, 12, generator=generator)
    known = module_gradients(module, x)
    lean_(module)
    assert deviation(module_gradients(module, x), known) <= 3e-6
    right = function.backward
    monkeypatch.setattr(function, "backward", staticmethod(lambda ctx, dy: _scaled(right(ctx, dy))))
    assert deviation(module_gradients(module, x), known) > 5e-4


def _scaled(gradients: Tensor | tuple[Tensor | None, ...]) -> Tensor | tuple[Tensor | None, ...]:
    if isinstance(gradients, Tensor):
        return gradients * 1.001
    return gradients[0] * 1.001, *gradients[1:]


def test_relu_keeps_bits_and_ignores_what_is_cut_off(generator: torch.Generator) -> None:
    module = nn.Sequential(nn.ReLU()).train()
    lean_(module)
    x = torch.randn(16, 32, generator=generator).requires_grad_()
    assert Kept(module, lambda: module(x).sum(), []).total == x.numel() // 8
    (dx,) = torch.autograd.grad(module(x), x, torch.full_like(x, torch.inf))
    assert torch.equal(dx, torch.where(x > 0, torch.inf, 0.0))


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_new"])
def test_a_gated_block_keeps_both_factors_once(name: str, generator: torch.Generator) -> None:
    block = GatedBlock(ACT2FN[name]).train()
    x = torch.randn(40, 12, generator=generator)
    known = module_gradients(block, x)
    found = lean_(block)
    assert found.found["act"].endswith("gated")
    assert deviation(module_gradients(block, x), known) <= 3e-6
    width, bits = 40 * 20 * 4, 40 * 20 // 8
    assert Kept(block, lambda: block(x).sum(), [x]).total == 2 * width + bits


def test_fused_projections_are_gated_too(generator: torch.Generator) -> None:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both, self.out, self.act = nn.Linear(12, 40), nn.Linear(20, 12), nn.SiLU()

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.both(x).chunk(2, -1)
            return self.out(self.act(a) * b)

    block, x = Fused().train(), torch.randn(30, 12, generator=generator)
    known = module_gradients(block, x)
    before = Kept(block, lambda: block(x).sum(), [x]).total
    assert lean_(block).found["act"] == "SiLU, gated"
    assert deviation(module_gradients(block, x), known) <= 3e-6
    assert Kept(block, lambda: block(x).sum(), [x]).total == 30 * 40 * 4 < before


def test_an_output_that_is_not_multiplied_is_an_ordinary_tensor(generator: torch.Generator) -> None:
    class NotGated(GatedBlock):
        def forward(self, x: Tensor) -> Tensor:
            act = self.act(self.one(x))
            self.seen = (
                act,
                act + 1,
                torch.cat([act, act]),
                act * 2.0,
                act * act[:1],
                F.linear(act, self.out.weight),
            )
            return self.out(act) + act.sum()

    block, x = NotGated(nn.SiLU()).train(), torch.randn(9, 12, generator=generator)
    known = module_gradients(block, x)
    assert lean_(block).found["act"] == "SiLU, gated"
    assert deviation(module_gradients(block, x), known) <= 3e-6
    assert type(block.seen[0]) is AwaitingProduct
    assert all(type(tensor) is Tensor for tensor in block.seen[1:])


def test_hooks_on_the_activation_see_its_gradient(generator: torch.Generator) -> None:
    block, x = GatedBlock(nn.SiLU()).train(), torch.randn(9, 12, generator=generator)
    seen = []
    block.act.register_full_backward_hook(lambda m, dx, dy: seen.append((dx[0].clone(), dy[0].clone())))
    known = module_gradients(block, x)
    lean_(block)
    assert deviation(module_gradients(block, x), known) <= 3e-6
    (dx, dy), (lean_dx, lean_dy) = seen
    assert torch.allclose(dx, lean_dx, rtol=1e-5, atol=1e-7)
    assert torch.allclose(dy, lean_dy, rtol=1e-5, atol=1e-7)
