"""Dropout of a lean model is that of the stock one, element by element."""

from __future__ import annotations

import pytest
import torch
from support.lean_gradients import SEED, Kept, module_gradients
from torch import nn

from wtacrs.integration import lean_
from wtacrs.integration.layers.lean import dropout as lean
from wtacrs.integration.layers.lean.dropout import dropout
from wtacrs.integration.layers.lean.keep_masks import kept_probability, quick_keep


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


PROBABILITIES = [1e-7, 0.1, 1 / 3, 0.5, 0.9, 1 - 1e-7]


@pytest.fixture
def all_codes(monkeypatch: pytest.MonkeyPatch) -> torch.Size:
    """Each of the 65,536 codes of 16 bits is drawn once, so that an average over elements is the expectation."""
    codes = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    monkeypatch.setattr(torch.Tensor, "random_", lambda words, *_: words.copy_(codes.view(torch.int64)))
    return codes.shape


@pytest.mark.parametrize("p", PROBABILITIES)
def test_a_quick_mask_keeps_with_the_probability_that_is_divided_by(p: float, all_codes: torch.Size) -> None:
    kept = kept_probability(p, quick=True)
    assert abs(kept - (1 - p)) <= 2**-16
    assert quick_keep(all_codes, p, torch.device("cpu")).double().mean().item() == kept


@pytest.mark.parametrize("planted", [False, True])
@pytest.mark.parametrize("p", [0.1, 1 / 3, 0.9])
def test_the_mean_of_quick_dropout_is_its_input(
    p: float, planted: bool, all_codes: torch.Size, monkeypatch: pytest.MonkeyPatch
) -> None:
    if planted:  # what is kept is divided by 1 − p, and not by the rounded probability
        monkeypatch.setattr(lean, "kept_of", lambda x, p, quick: 1.0 - p)
    x = torch.full(all_codes, 3.0, dtype=torch.float64).requires_grad_()
    y = dropout(x, p, quick=True)
    y.sum().backward()
    for found, mean in ((y, 3.0), (x.grad, 1.0)):
        assert found is not None
        assert (abs(found.mean().item() / mean - 1) < 1e-12) is not planted


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_quick_dropout_passes_on_what_it_kept(dtype: torch.dtype, generator: torch.Generator) -> None:
    module = nn.Sequential(nn.Dropout(0.3)).train()
    assert lean_(module, dropout="quick").found == {"0": "dropout, quick masks"}
    x = torch.randn(7, 33, generator=generator).to(dtype).requires_grad_()
    assert Kept(module, lambda: module(x).sum(), []).total == (x.numel() + 7) // 8
    y = module(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(y, x.grad * x)
    assert set(x.grad.flatten().tolist()) == {
        0.0,
        torch.tensor(1 / kept_probability(0.3, quick=True), dtype=dtype).item(),
    }


def test_quick_dropout_is_made_again_by_a_recipe(generator: torch.Generator) -> None:
    model = nn.Sequential(nn.LayerNorm(8), nn.Dropout(0.3), nn.Linear(8, 4)).train()
    lean_(model, dropout="quick")
    seen: list[torch.Tensor] = []
    model[1].register_forward_hook(lambda m, args, y: seen.append(y))
    model(torch.randn(5, 8, generator=generator)).sum().backward()
    torch.testing.assert_close(model[2].weight.grad, seen[0].detach().sum(0).expand(4, 8))
