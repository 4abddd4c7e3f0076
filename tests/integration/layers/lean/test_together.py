"""All lean pieces at once: attention, output layer and neighbours, with and without estimates, and back."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from support.models import bert_batch, t5_batch, tiny_bert, tiny_t5
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from wtacrs.estimators import InputError
from wtacrs.integration import approximate_, lean_, restore_
from wtacrs.integration.measure.kept_bytes import KeptBytesProbe


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32)).train()


def llama() -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64,
    )  # fmt: skip
    return LlamaForCausalLM(config).train()


def t5() -> nn.Module:
    return tiny_t5(dropout=0.1)


def causal_batch() -> dict[str, Tensor]:
    batch = t5_batch()
    return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


MODELS = {
    "t5": (t5, t5_batch),
    "gpt2": (gpt2, causal_batch),
    "llama": (llama, causal_batch),
    "bert": (tiny_bert, bert_batch),
}


def step(model: nn.Module, batch: dict[str, Tensor]) -> tuple[float, dict[str, Tensor], int]:
    probe = KeptBytesProbe(model)
    torch.manual_seed(3)
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert probe.found is not None, probe.reason
    return loss.item(), gradients, probe.found.kept


@pytest.mark.parametrize("head", ["forward", "again"])
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_those_of_stock_and_less_is_kept(
    name: str, head: Literal["forward", "again"]
) -> None:
    build, make_batch = MODELS[name]
    model, batch = build(), make_batch()
    keys, classes = list(model.state_dict()), [type(module) for module in model.modules()]
    expected, wanted, before = step(model, batch)
    lean = lean_(model, attention="keep", head=head)
    assert lean.attention == {}
    assert (lean.head == {}) == (name != "bert")
    loss, found, after = step(model, batch)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert found.keys() == wanted.keys()
    for parameter, gradient in wanted.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-3, atol=2e-6, msg=parameter)
    assert after < before
    assert list(model.state_dict()) == keys
    assert set(restore_(model)) == set(lean)
    assert [type(module) for module in model.modules()] == classes
    again, gradients, kept = step(model, batch)
    assert (again, kept) == (expected, before)
    assert all(torch.equal(gradients[parameter], wanted[parameter]) for parameter in wanted)


@pytest.mark.parametrize("name", MODELS)
def test_estimated_layers_beside_lean_pieces_leave_all_else_exact(name: str) -> None:
    build, make_batch = MODELS[name]
    model, batch = build(), make_batch()
    _, wanted, before = step(model, batch)
    lean_(model, attention="keep", head="again")
    converted = approximate_(model, "wta_crs(budget=0.3)", min_elements=0)
    _, found, after = step(model, batch)
    weights = {id(model.get_submodule(layer).weight) for layer in converted}
    exact = [n for n, p in model.named_parameters() if n in wanted and id(p) not in weights]
    assert len(exact) > 5
    for parameter in exact:
        torch.testing.assert_close(found[parameter], wanted[parameter], rtol=1e-3, atol=2e-6, msg=parameter)
    assert after < before


def test_without_being_asked_for_attention_and_head_stay_stock() -> None:
    model = tiny_t5()
    before = model.config._attn_implementation
    lean = lean_(model)
    assert (lean.attention, lean.head) == (None, None)
    assert model.config._attn_implementation == before
    with pytest.raises(InputError, match="head='whole' must be None, forward or again"):
        lean_(model, head="whole")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="attention"):
        lean_(model, attention="yes")  # type: ignore[arg-type]
    assert lean_(model, head="again").head == {}  # called again, with more
    restore_(model)


def test_asked_of_approximate_the_head_is_lean_and_samples() -> None:
    model, batch = gpt2(), causal_batch()
    _, wanted, before = step(model, batch)
    converted = approximate_(model, "wta_crs(budget=0.3)", min_elements=0, lean="attention,head-again,8-bit")
    assert "lm_head" in converted
    assert converted.lean is not None
    assert converted.lean.head == {}
    assert converted.lean.found["transformer.h.0.mlp.act"] == "GELU (tanh), 8-bit codes where they are less"
    _, found, after = step(model, batch)
    assert found.keys() == wanted.keys()
    assert after < before
