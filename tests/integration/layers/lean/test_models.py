"""Whole models: loss, gradients and random numbers of the stock model, with dropout on, and fewer bytes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.architectures import ARCHITECTURES, build, padded_batch
from support.lean_gradients import Kept, deviation, model_gradients
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from wtacrs.integration import approximate_, lean_, restore_
from wtacrs.integration.layers.lean.activation import Gated, ReLU
from wtacrs.integration.layers.lean.dropout import Dropout
from wtacrs.integration.layers.lean.linear import LinearOfRecipe
from wtacrs.integration.layers.lean.norm import RMSNorm

SPEC = "wta_crs(budget=0.3)"
FOUND = {
    "t5": {"RMS norm, scale weight, eps 1e-06", "ReLU", "dropout"},
    "new:t5-gated": {"RMS norm, scale weight, eps 1e-06", "GELU (tanh), gated", "dropout"},
    "new:bert": {"LayerNorm", "GELU", "dropout"},
    "new:deberta": {"LayerNorm", "GELU", "dropout"},
    "new:gpt2": {"LayerNorm", "GELU (tanh)", "dropout"},
    "new:llama": {"RMS norm, scale weight, eps 1e-06", "SiLU, gated"},
    "new:opt": {"LayerNorm", "ReLU"},
}


def with_dropout(name: str, tokenizer: PreTrainedTokenizerBase) -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = build(name, tokenizer)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms, which are built all alike, and biases
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    model.config.use_cache = False
    return model, padded_batch(model)


def test_every_architecture_is_known() -> None:
    assert set(FOUND) == set(ARCHITECTURES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_loss_gradients_and_dropout_are_those_of_the_stock_model(
    name: str, dtype: torch.dtype, tokenizer: PreTrainedTokenizerBase
) -> None:
    model, batch = with_dropout(name, tokenizer)
    model = model.to(dtype)
    known, state = model_gradients(model, batch)
    types, keys = [type(module) for module in model.modules()], list(model.state_dict())
    lean = lean_(model)
    assert set(lean.found.values()) == FOUND[name] | {"exact linear layer"}
    found, after = model_gradients(model, batch)
    assert torch.equal(after, state)
    assert deviation(found, known) <= (1e-5 if dtype == torch.float32 else 1e-10)
    assert restore_(model) == lean
    assert [type(module) for module in model.modules()] == types
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_fewer_bytes_are_kept_and_none_of_them_twice(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    model, batch = with_dropout(name, tokenizer)
    inputs = list(batch.values())

    def kept() -> Kept:
        torch.manual_seed(0)
        return Kept(model, lambda: model(**batch).loss, inputs)

    stock = kept().total
    lean_(model)
    lean = kept()
    assert lean.total < 0.95 * stock
    pieces = [owners for owners in lean.twice if any("Lean" in owner for owner in owners)]
    assert pieces == []
    approximate_(model, SPEC, min_elements=0)
    both = kept().total
    restore_(model)
    approximate_(model, SPEC, min_elements=0)
    assert both < kept().total


@pytest.mark.parametrize("order", ["lean first", "lean last", "at once"])
def test_either_order_gives_one_model(order: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """The same estimates, whose random numbers are the layers' own, as without lean neighbours."""
    model, batch = with_dropout("new:bert", tokenizer)
    linears = approximate_(model, SPEC, min_elements=0, seed=3)
    known, state = model_gradients(model, batch)
    restore_(model)
    if order == "lean first":
        lean_(model)
    converted = approximate_(model, SPEC, min_elements=0, seed=3, lean=order == "at once")
    if order == "lean last":
        lean_(model)
    assert converted == linears
    assert (converted.lean is not None) is (order == "at once")
    found, after = model_gradients(model, batch)
    assert torch.equal(after, state)
    # LayerNorm is bit by bit what it was; an RMS norm that rounds otherwise might move a row over the edge of a sample
    assert deviation(found, known) <= 1e-5
    approximate_(model, {"bert.encoder.*": "exact", "*": SPEC}, min_elements=0)
    assert type(model.bert.encoder.layer[0].attention.self.query).__name__ == "LeanLinear"
    names = restore_(model)
    assert set(linears) < set(names)
    assert not any("lean" in name for module in model.modules() for name in vars(module))


@pytest.mark.parametrize("function", [RMSNorm, Gated, Dropout, LinearOfRecipe, ReLU])
def test_a_wrong_derivative_is_found(
    function: Any, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = with_dropout("t5" if function is ReLU else "new:t5-gated", tokenizer)
    known, _ = model_gradients(model, batch)
    lean_(model)
    right = function.backward

    def wrong(ctx: Any, *dy: Any) -> Any:
        found = right(ctx, *dy)
        if isinstance(found, Tensor):
            return found * 1.001
        return tuple(value * 1.001 if isinstance(value, Tensor) else value for value in found)

    monkeypatch.setattr(function, "backward", staticmethod(wrong))
    assert deviation(model_gradients(model, batch)[0], known) > 2e-4


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["t5", "new:bert", "new:llama"])
def test_checkpointing(name: str, reentrant: bool, tokenizer: PreTrainedTokenizerBase) -> None:
    model, batch = with_dropout(name, tokenizer)
    known, _ = model_gradients(model, batch)
    lean_(model)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    found, _ = model_gradients(model, batch)
    assert deviation(found, known) <= 1e-5


@pytest.mark.parametrize("name", ["t5", "new:bert", "new:llama"])
def test_half_precision(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Under autocast and with weights in bf16: as far from single precision as the stock model is, within a tenth."""
    for weights in (torch.float32, torch.bfloat16):
        model, batch = with_dropout(name, tokenizer)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        exact, _ = model_gradients(model.eval().train(), batch)
        off = []
        model = model.to(weights)
        for lean in (False, True):
            if lean:
                lean_(model)
            with torch.autocast("cpu", torch.bfloat16, enabled=weights == torch.float32):
                found, _ = model_gradients(model, batch)
            off.append(sum((found[n].double() - exact[n].double()).norm().item() ** 2 for n in exact) ** 0.5)
        assert 0 < off[1] <= 1.1 * off[0]
