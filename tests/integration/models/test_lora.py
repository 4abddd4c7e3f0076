"""LoRA of peft: what is estimated, what is kept, and that everything else is peft's own result."""

from __future__ import annotations

import copy
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.optimizers import create_lorafa_optimizer
from support.lora_models import ALPHA, RANK, with_lora
from support.mean_gradients import gradients
from support.models import VOCABULARY, bert_batch, sampled_rows, t5_batch, tiny_bert, tiny_t5
from torch import Tensor, nn
from transformers import BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification
from transformers.pytorch_utils import Conv1D

from wtacrs.estimators import make, saved_bytes
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.conv1d import ApproxConv1D
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.layers.linear import ApproxLinear

SPEC = "crs(budget=0.3)"

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:None of the inputs:UserWarning")


def every(layer: nn.Module, name: str) -> bool:
    """A filter that takes B as well."""
    return True


def one_layer(spec: str = SPEC, dropout: float = 0.0) -> Any:
    """peft's layer around a linear layer of 12 → 5 features, converted."""
    torch.manual_seed(0)
    adapted = with_lora(nn.Sequential(nn.Linear(12, 5), nn.Identity()), dropout)
    approximate_(adapted, spec, min_elements=0, filter_fn=every)
    return adapted.base_model.model[0]


def storages_kept(run: Any) -> dict[int, int]:
    """Bytes of every storage that a computation keeps, by address."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run()
    assert out.requires_grad
    return kept


def kept_of_input(layer: nn.Module, x: Tensor) -> int:
    """Bytes kept beside parameters; fails if x itself is among them."""
    kept = storages_kept(lambda: layer(x))
    assert x.untyped_storage().data_ptr() not in kept
    own = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    return sum(size for pointer, size in kept.items() if pointer not in own)


def test_the_frozen_base_keeps_nothing_and_the_adapter_keeps_the_sample() -> None:
    layer = one_layer()
    x = torch.randn(4, 10, 12, requires_grad=True)
    assert kept_of_input(layer.base_layer, x) == 0
    a, b = layer.lora_A.default, layer.lora_B.default
    sample = saved_bytes(make(SPEC).compress(x.detach().reshape(40, 12)))
    small = saved_bytes(make(SPEC).compress(torch.ones(40, RANK)))
    assert kept_of_input(a, x) == sample < 40 * 12 * 4 / 2
    assert kept_of_input(b, torch.randn(4, 10, RANK, requires_grad=True)) == small
    assert kept_of_input(layer, x) == sample + small
    stock = storages_kept(lambda: restored(layer)(x))
    assert stock[x.untyped_storage().data_ptr()] == 40 * 12 * 4


def restored(layer: nn.Module) -> nn.Module:
    stock = copy.deepcopy(layer)
    restore_(stock)
    return stock


def test_b_is_exact_unless_it_is_asked_for() -> None:
    """What it reads is r numbers wide: estimating it would add variance and save next to nothing."""
    adapted = with_lora(nn.Sequential(nn.Linear(12, 5), nn.Identity()))
    assert approximate_(adapted, SPEC, min_elements=0) == [
        "base_model.model.0.base_layer",
        "base_model.model.0.lora_A.default",
    ]
    layer = adapted.base_model.model[0]
    x = torch.randn(4, 10, 12, requires_grad=True)
    sample = saved_bytes(make(SPEC).compress(x.detach().reshape(40, 12)))
    assert kept_of_input(layer, x) == sample + 40 * RANK * 4


def test_da_is_what_the_estimator_makes_of_x_and_the_gradient_behind_a() -> None:
    layer = one_layer()
    a, b = layer.lora_A.default, layer.lora_B.default
    a.context = b.context = None  # draw from torch's own generator
    x, dy = torch.randn(4, 10, 12), torch.randn(4, 10, 5)
    torch.manual_seed(3)
    layer(x).backward(dy)
    torch.manual_seed(3)
    saved = make(SPEC).compress(x.reshape(40, 12))
    behind = (dy.reshape(40, 5) * layer.scaling["default"]) @ b.weight
    torch.testing.assert_close(a.weight.grad, make(SPEC).contract(saved, behind))
    assert layer.base_layer.weight.grad is None


def test_lora_fa_keeps_nothing_of_x() -> None:
    """A frozen as well: only B is trained, and reads r features."""
    adapted = with_lora(tiny_bert(), task_type="SEQ_CLS")
    create_lorafa_optimizer(adapted, r=RANK, lora_alpha=ALPHA, lr=1e-2)
    approximate_(adapted, SPEC, min_elements=0)
    layer = adapted.base_model.model.bert.encoder.layer[0].intermediate.dense
    x = torch.randn(3, 10, 32, requires_grad=True)
    assert kept_of_input(layer, x) == 30 * RANK * 4
    adapted(**bert_batch()).loss.backward()
    assert layer.lora_A.default.weight.grad is None
    assert layer.lora_B.default.weight.grad is not None


def test_dropout_of_an_adapter_keeps_its_own_mask_and_nothing_of_x() -> None:
    layer = one_layer(dropout=0.5)
    x = torch.randn(4, 10, 12, requires_grad=True)
    sample, small = (saved_bytes(make(SPEC).compress(torch.ones(40, d))) for d in (12, RANK))
    mask = sum(storages_kept(lambda: nn.functional.dropout(x, 0.5)).values())  # a byte an element, or a number
    assert kept_of_input(layer, x) == sample + small + mask


@pytest.mark.parametrize("when", ["before", "after", "both"])
def test_what_is_estimated_before_and_after_get_peft_model(when: str) -> None:
    model = tiny_t5()
    if when != "after":
        approximate_(model, SPEC, min_elements=0)
    adapted = with_lora(model)
    if when != "before":
        approximate_(adapted, SPEC, min_elements=0, share_inputs=False)
    rows = sampled_rows(adapted, t5_batch(), times=1)
    trained = [name.removesuffix(".weight") for name, p in adapted.named_parameters() if p.requires_grad]
    assert len(trained) == 64
    assert all(".lora_" in name for name in trained)
    assert set(rows) == (set() if when == "before" else {name for name in trained if "lora_A" in name})
    base = {type(module.base_layer) for module in adapted.modules() if hasattr(module, "base_layer")}
    assert base == {ApproxLinear}
    assert all(p.grad is None for name, p in adapted.named_parameters() if ".lora_" not in name)


@pytest.mark.parametrize("when", ["after", "both"])
def test_padding_is_left_out_through_adapters(when: str) -> None:
    """Cross-attention too, told by the length of what it reads."""
    model, batch = tiny_t5(), t5_batch()
    if when == "both":
        approximate_(model, SPEC)
    adapted = with_lora(model)
    approximate_(adapted, "crs(budget=0.9)", min_elements=0, share_inputs=False, filter_fn=every, mask_floor=1e-9)
    source = set(batch["attention_mask"].flatten().nonzero().flatten().tolist())
    target = set((batch["labels"] != -100).flatten().nonzero().flatten().tolist())
    seen = sampled_rows(adapted, batch)
    assert len(seen) == 64
    for name, rows in seen.items():
        key_or_value = "EncDecAttention.k." in name or "EncDecAttention.v." in name
        assert rows <= (source if ".encoder." in name or key_or_value else target), name


def test_adapters_of_q_k_and_v_share_one_copy() -> None:
    adapted = with_lora(tiny_bert(), task_type="SEQ_CLS")
    approximate_(adapted, SPEC, min_elements=0)
    found = {}
    for name, layer in adapted.named_modules():
        if "lora_A" in name and isinstance(layer, ApproxLinear):
            layer.register_forward_pre_hook(lambda m, args, n=name: found.update({n: m.finds_shared(args[0])}))
    adapted(**bert_batch())
    assert [name.split(".")[-3] for name, shared in found.items() if shared] == ["key", "value"]


def gpt2() -> GPT2ForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 16}
    return GPT2ForSequenceClassification(GPT2Config(vocab_size=VOCABULARY, pad_token_id=0, **sizes)).train()


def test_adapters_of_conv1d() -> None:
    """peft makes linear adapters beside a `Conv1D`, converted or not."""
    model = gpt2()
    approximate_(model, SPEC, min_elements=0)
    adapted = with_lora(model, task_type="SEQ_CLS", fan_in_fan_out=True)
    found = approximate_(adapted, SPEC, min_elements=0, share_inputs=False)
    seen = sampled_rows(adapted, bert_batch(), times=1)
    adapters = {name for name in found if "lora_A" in name}
    heads = {name for name in found if "modules_to_save" in name}
    assert set(seen) == adapters | heads
    assert len(adapters) == 4
    layer = adapted.base_model.model.transformer.h[0].mlp.c_fc
    assert isinstance(layer.base_layer, ApproxConv1D)
    x = torch.randn(3, 10, 32, requires_grad=True)
    assert kept_of_input(layer.base_layer, x) == 0
    restore_(adapted)
    assert type(layer.base_layer) is Conv1D


def test_masks_reach_adapters_given_by_position() -> None:
    adapted = with_lora(tiny_bert())  # a wrapper that takes any argument
    approximate_(adapted, "crs(budget=0.9)", min_elements=0)
    masks = ForwardContext.of(adapted)
    assert masks is not None
    seen: list[Tensor] = []
    layer = adapted.base_model.model.bert.encoder.layer[0].intermediate.dense
    layer.register_forward_hook(lambda _, args, __: seen.append(masks.current.mask(args[0].shape[:-1])))
    batch = bert_batch()
    adapted(batch["input_ids"], batch["attention_mask"])
    assert torch.equal(seen[0], batch["attention_mask"].bool())


def test_a_copied_head_gets_the_masks_of_the_model_it_is_in() -> None:
    """peft copies `modules_to_save`, and with them the masks of a model converted before, which no hook fills."""
    model = tiny_bert()
    approximate_(model, SPEC, min_elements=0)
    adapted = with_lora(model, task_type="SEQ_CLS", modules_to_save=["pooler"])
    copied = adapted.base_model.model.bert.pooler.modules_to_save.default.dense
    assert not copied.context.hooked
    approximate_(adapted, SPEC, min_elements=0)
    assert copied.context is ForwardContext.of(adapted)


def test_merging_saving_and_loading_are_those_of_peft(tmp_path: Path) -> None:
    batch = bert_batch()
    stock, adapted = (with_lora(tiny_bert(), task_type="SEQ_CLS").eval() for _ in range(2))
    before = copy.deepcopy(stock.state_dict())
    approximate_(adapted, SPEC, min_elements=0)
    assert adapted.state_dict().keys() == before.keys()
    logits = stock(**batch).logits
    assert torch.equal(adapted(**batch).logits, logits)
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(tiny_bert(), str(tmp_path / "adapter")).eval()
    assert not any(isinstance(module, EstimatedWeightGrad) for module in loaded.modules())
    assert torch.equal(loaded(**batch).logits, logits)
    for model in (stock, adapted):
        model.merge_adapter()
    assert torch.equal(adapted(**batch).logits, stock(**batch).logits)
    for model in (stock, adapted):
        model.unmerge_adapter()
    for name, value in adapted.state_dict().items():
        assert torch.equal(value, stock.state_dict()[name]), name
    whole, stock_whole = adapted.merge_and_unload(), stock.merge_and_unload()
    restore_(whole)
    assert [type(m) for m in whole.modules()] == [type(m) for m in stock_whole.modules()]
    assert torch.equal(whole(**batch).logits, stock_whole(**batch).logits)
    whole.save_pretrained(tmp_path / "whole")
    again = BertForSequenceClassification.from_pretrained(tmp_path / "whole").eval()
    assert torch.equal(again(**batch).logits, stock_whole(**batch).logits)


def test_a_merged_model_is_converted_again() -> None:
    """After `restore_`, the masks of the wrapper that is gone are forgotten."""
    adapted = with_lora(tiny_t5())
    approximate_(adapted, SPEC, min_elements=0)
    whole = adapted.merge_and_unload().train()
    restore_(whole)
    whole.requires_grad_(True)
    approximate_(whole, "crs(budget=0.9)", min_elements=0, share_inputs=False, mask_floor=1e-9)
    real = set(t5_batch()["attention_mask"].flatten().nonzero().flatten().tolist())
    seen = sampled_rows(whole, t5_batch())
    assert all(rows <= real for name, rows in seen.items() if name.startswith("encoder"))


def test_a_layer_is_copied_after_its_wrapper_is_gone() -> None:
    adapted = with_lora(tiny_bert(), task_type="SEQ_CLS")
    approximate_(adapted, SPEC, min_elements=0)
    whole = adapted.merge_and_unload()
    del adapted
    gc.collect()
    layer = whole.bert.encoder.layer[0].intermediate.dense
    assert isinstance(layer, ApproxLinear)
    assert not layer.context.hooked
    twin = copy.deepcopy(layer)
    assert torch.equal(twin.weight, layer.weight)
    twin.train().requires_grad_(True)
    twin(torch.randn(4, 10, 32)).sum().backward()
    assert twin.weight.grad.isfinite().all()
    copy.deepcopy(whole)


def test_everything_but_the_adapters_estimates_is_exact() -> None:
    adapted, batch = with_lora(tiny_t5(), dropout=0.2, modules_to_save=["layer_norm"]), t5_batch()
    approximate_(adapted, "exact")
    torch.manual_seed(6)
    exact = gradients(adapted, batch)
    approximate_(adapted, "topk(budget=0.3)", min_elements=0)
    torch.manual_seed(6)
    found = gradients(adapted, batch)
    untouched = [name for name in exact if "lora_A" not in name]
    assert any("modules_to_save" in name for name in untouched)
    for name in untouched:
        torch.testing.assert_close(found[name], exact[name], rtol=1e-4, atol=1e-7)
    estimated = [name for name in exact if "lora_A" in name]
    assert any(not torch.allclose(found[name], exact[name], rtol=1e-3) for name in estimated)


def lorafa(model: nn.Module) -> nn.Module:
    create_lorafa_optimizer(model, r=RANK, lora_alpha=ALPHA, lr=1e-2)
    return model


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("kind", ["lora", "lora-fa", "converted twice"])
@pytest.mark.parametrize("spec", [SPEC, "wta_crs(budget=0.3)"])
def test_checkpointing_draws_the_same_rows(spec: str, kind: str, reentrant: bool) -> None:
    """With dropout and padding: all gradients are those of the same seed without checkpointing."""

    def step(checkpointed: bool, seed: int = 7) -> dict[str, Tensor]:
        model = tiny_t5(dropout=0.1)
        if kind == "converted twice":
            approximate_(model, spec, min_elements=0)
        adapted = with_lora(model, 0.1)
        if kind == "lora-fa":
            lorafa(adapted)
        approximate_(adapted, spec, min_elements=0, filter_fn=every)
        if checkpointed:
            adapted.enable_input_require_grads()
            adapted.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        torch.manual_seed(seed)
        return gradients(adapted, t5_batch())

    plain, other = step(False), step(True)
    assert plain.keys() == other.keys()
    for name in plain:
        torch.testing.assert_close(other[name], plain[name], rtol=1e-4, atol=1e-6)
    assert any(not torch.allclose(gradient, plain[name], rtol=0.1) for name, gradient in step(False, 8).items())
