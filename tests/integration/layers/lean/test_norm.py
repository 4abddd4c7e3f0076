"""Norms beside the stock ones: output and gradients, in every dtype, and what they keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.lean_gradients import Kept, deviation, module_gradients
from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from wtacrs.estimators import InputError
from wtacrs.integration import lean_
from wtacrs.integration.layers.lean.norm import RMSNorm, RMSTerms, rms_again, rms_norm

D = 48
NORMS: dict[str, Callable[[], nn.Module]] = {
    "t5": lambda: T5LayerNorm(D),
    "llama": lambda: LlamaRMSNorm(D),
    "gemma": lambda: GemmaRMSNorm(D),
    "torch": lambda: nn.RMSNorm(D),
    "torch-eps": lambda: nn.RMSNorm(D, eps=1e-3),
    "layer": lambda: nn.LayerNorm(D),
}


def norm(name: str, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """A norm with weights of its own choice."""
    made = NORMS[name]()
    generator = torch.Generator().manual_seed(3)
    for parameter in made.parameters():
        nn.init.normal_(parameter, 0.5, 1.0, generator=generator)
    return nn.Sequential(made).to(dtype).train()


def rows(generator: torch.Generator, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Tensor:
    return (torch.randn(3, 7, D, generator=generator, dtype=torch.float64) * scale + 0.3 * scale).to(dtype)


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
def test_rms_norm_in_double_precision(offset: float, scale: float, generator: torch.Generator) -> None:
    weight = torch.randn(D, generator=generator, dtype=torch.float64)
    x = rows(generator, scale=scale)
    dy = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    terms = RMSTerms("weight", 1e-6, offset, "late", True)

    def stock(x: Tensor, w: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (offset + w)

    found, known = [], []
    for function, into in ((lambda x, w: rms_norm(x, w, terms), found), (stock, known)):
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        y = function(*leaves)
        into += [y.detach(), *torch.autograd.grad(y, leaves, dy)]
    for a, b in zip(found, known, strict=True):
        assert (a - b).norm() <= 1e-12 * b.norm()


@pytest.mark.parametrize("name", ["torch", "torch-eps", "layer"])
def test_modules_in_double_precision(name: str, generator: torch.Generator) -> None:
    module, x = norm(name, torch.float64), rows(generator)
    known = module_gradients(module, x)
    lean_(module)
    assert deviation(module_gradients(module, x), known) <= 1e-12


@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
@pytest.mark.parametrize("name", NORMS)
def test_modules_in_single_precision(name: str, scale: float, generator: torch.Generator) -> None:
    module, x = norm(name), rows(generator, torch.float32, scale)
    known = module_gradients(module, x)
    lean_(module)
    assert deviation(module_gradients(module, x), known) <= 3e-6


@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)])
@pytest.mark.parametrize("name", [name for name in NORMS if name != "layer"])
def test_modules_in_half_precision(
    name: str, dtypes: tuple[torch.dtype, torch.dtype], generator: torch.Generator
) -> None:
    x_dtype, w_dtype = dtypes
    module, x = norm(name, w_dtype), rows(generator, x_dtype)
    known = module_gradients(module, x)
    lean_(module)
    found = module_gradients(module, x)
    assert {key: value.dtype for key, value in found.items()} == {key: value.dtype for key, value in known.items()}
    assert (
        deviation({"y": found["y"]}, {"y": known["y"]}) <= 1e-4
    )  # a rounding that goes the other way now and then
    assert deviation(found, known) <= 0.02


def test_a_module_that_casts_to_single_precision_runs_its_own_forward_in_double(
    generator: torch.Generator,
) -> None:
    module, x = norm("t5", torch.float64), rows(generator)
    known = module_gradients(module, x)
    lean_(module)
    found = module_gradients(module, x)
    assert all(torch.equal(found[name], value) for name, value in known.items())


@pytest.mark.parametrize("name", NORMS)
def test_only_the_input_and_numbers_per_row_are_kept(name: str, generator: torch.Generator) -> None:
    module = norm(name)
    x = rows(generator, torch.float32).requires_grad_()
    lean_(module)
    numbers = 2 if name == "layer" else 1
    assert Kept(module, lambda: module(x).sum(), []).total == x.nbytes + numbers * 4 * 21


def test_frozen_weights_and_inputs(generator: torch.Generator) -> None:
    module, x = norm("llama"), rows(generator, torch.float32)
    lean_(module)
    module[0].weight.requires_grad_(False)
    assert module_gradients(module, x).keys() == {"y", "x"}
    module[0].weight.requires_grad_(True)
    module(x).sum().backward()
    assert module[0].weight.grad is not None


def test_the_test_finds_a_wrong_derivative(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    """Without the term that LayerNorm has for its mean dx is wrong, and dw is not."""
    module, x = norm("llama"), rows(generator, torch.float32)
    known = module_gradients(module, x)
    lean_(module)
    right = RMSNorm.backward

    def without_the_term(ctx: Any, dy: Tensor) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(torch, "mv", lambda a, b: torch.zeros(len(a)))
            return right(ctx, dy)

    monkeypatch.setattr(RMSNorm, "backward", staticmethod(without_the_term))
    found = module_gradients(module, x)
    assert deviation(found, known) > 1e-3
    assert torch.allclose(found["0.weight"], known["0.weight"], rtol=1e-5)


def test_no_second_derivative(generator: torch.Generator) -> None:
    module = norm("t5")
    lean_(module)
    x = rows(generator, torch.float32).requires_grad_()
    with pytest.raises(InputError, match="no second derivative"):
        torch.autograd.grad(module(x).sum(), x, create_graph=True)


def test_a_recipe_makes_the_very_output_again(generator: torch.Generator) -> None:
    terms = RMSTerms("weight", 1e-6, 0.0, "input", False)
    x, weight = rows(generator, torch.float32), torch.randn(D, generator=generator)
    assert torch.equal(rms_norm(x, weight, terms), rms_again(x, weight, terms))
