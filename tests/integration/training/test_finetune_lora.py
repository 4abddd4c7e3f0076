"""Fine-tuning with LoRA: only adapters and head train, stock models come out, an interrupted run ends as a whole one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from support.runs import TASK, Interrupted, bert, check_resuming, interrupt_at, tiny
from torch import nn
from transformers import (
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5ForConditionalGeneration,
)

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.models.loading import small_t5
from wtacrs.integration.models.lora import add_lora, merge_lora, merged_state
from wtacrs.integration.studies.memory import measure_memory
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.integration.training.run import finetune

CONFIG = FinetuneConfig(
    steps=6, batch_size=8, lr=1e-2, max_length=24, eval_every=3, save_every=2, lora_rank=4, warmup=0.0
)
WRITERS = (BertForSequenceClassification, T5ForConditionalGeneration)


def small(kind: type[PreTrainedModel], tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    return tiny(tokenizer, dropout=0.1) if kind is T5ForConditionalGeneration else bert(tokenizer, 2)


def output(model: nn.Module, kind: type[PreTrainedModel]) -> torch.Tensor:
    tokens = torch.arange(3, 23).reshape(2, 10)
    more = {"labels": tokens} if kind is T5ForConditionalGeneration else {}
    with torch.no_grad():
        return model.eval()(input_ids=tokens, **more).logits


@pytest.mark.parametrize("estimator", [None, "wta_crs(budget=0.3)"])
@pytest.mark.parametrize("kind", WRITERS)
def test_only_adapters_and_head_train_and_stock_models_come_out(
    kind: type[PreTrainedModel], estimator: str | None, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model, before = small(kind, tokenizer), small(kind, tokenizer)
    result = finetune(CONFIG.but(out=tmp_path, estimator=estimator), TASK, model, tokenizer)
    assert result.parameters == before.num_parameters()
    assert 0 < result.trainable < result.parameters
    assert (result.converted > 0) == (estimator is not None)
    assert not any("lora" in name for name, _ in model.named_parameters())
    moved = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before.state_dict()[name])
    }
    assert moved
    assert all(before.get_parameter(name).ndim == 2 or name == "classifier.bias" for name in moved)
    assert not any("embed" in name or "shared" in name for name in moved)
    stock = kind.from_pretrained(tmp_path / "last")
    torch.testing.assert_close(output(stock, kind), output(model, kind))
    assert set(stock.state_dict()) == set(before.state_dict())
    adapted = PeftModel.from_pretrained(before, tmp_path / "last" / "adapter")
    torch.testing.assert_close(output(adapted, kind), output(model, kind))


def test_resumed_equals_uninterrupted(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    def model() -> T5ForConditionalGeneration:  # wide enough for its inputs to be sampled
        return small_t5(tokenizer, d_model=128, layers=1, heads=2, d_ff=64, dropout=0.1)

    config = CONFIG.but(batch_size=16, estimator="wta_crs(budget=0.2)")
    sampled = check_resuming(config, model, tokenizer, tmp_path, stop=3)
    exact = finetune(config.but(estimator=None), TASK, model(), tokenizer)
    assert exact.history[-1].train_loss != sampled.history[-1].train_loss
    with pytest.raises(InputError, match="lora_rank=5"):
        finetune(config.but(out=tmp_path / "part", resume=True, lora_rank=5), TASK, model(), tokenizer)


def test_an_interrupted_run_leaves_a_stock_model(tokenizer: PreTrainedTokenizerBase) -> None:
    model = tiny(tokenizer)
    with pytest.raises(Interrupted):
        finetune(CONFIG.but(estimator="crs(budget=0.3)"), TASK, model, tokenizer, on_point=interrupt_at(3))
    assert set(model.state_dict()) == set(tiny(tokenizer).state_dict())


def test_the_seed_decides_the_adapters(tokenizer: PreTrainedTokenizerBase) -> None:
    def adapters(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(7)
        found = add_lora(small(BertForSequenceClassification, tokenizer), 4, seed=seed)
        assert torch.initial_seed() == 7
        return {name: p for name, p in found.named_parameters() if "lora_A" in name}

    first, again, other = adapters(1), adapters(1), adapters(2)
    assert first
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("kind", WRITERS)
def test_merging_into_a_copy_leaves_the_model_alone(
    kind: type[PreTrainedModel], tokenizer: PreTrainedTokenizerBase
) -> None:
    wrapped = add_lora(small(kind, tokenizer), 4, alpha=6.0)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    before, untouched = {k: v.clone() for k, v in wrapped.state_dict().items()}, output(wrapped, kind)
    stock = small(kind, tokenizer)
    stock.load_state_dict(merged_state(wrapped))
    torch.testing.assert_close(output(stock, kind), untouched, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(untouched, output(small(kind, tokenizer), kind), atol=1e-2)
    assert all(torch.equal(value, before[name]) for name, value in wrapped.state_dict().items())
    merge_lora(wrapped)
    torch.testing.assert_close(output(wrapped.get_base_model(), kind), untouched, atol=1e-4, rtol=1e-4)


def test_lora_fa_trains_b_alone(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    config = CONFIG.but(lora_fa=True, out=tmp_path)
    model = small(BertForSequenceClassification, tokenizer)
    result = finetune(config, TASK, model, tokenizer)
    plain = finetune(CONFIG, TASK, small(BertForSequenceClassification, tokenizer), tokenizer)
    assert result.trainable < plain.trainable
    saved = load_file(tmp_path / "last" / "adapter" / "adapter_model.safetensors")
    start = add_lora(small(BertForSequenceClassification, tokenizer), 4, frozen_a=True, seed=config.seed)
    drawn = {name.replace(".default", ""): p for name, p in start.named_parameters() if "lora_A" in name}
    assert drawn
    assert all(torch.equal(saved[name], value) for name, value in drawn.items())
    assert any(saved[name].abs().sum() > 0 for name in saved if "lora_B" in name)


def test_memory_is_measured_with_adapters(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    def kept(**options: object) -> dict[str, int]:
        model = bert(tokenizer, 2)
        found = measure_memory(model, tokenizer, TASK, ["crs(budget=0.3)"], tmp_path, batch_size=16, **options)
        assert ("LoRA" in found.model) == bool(options)
        return {step.estimator: step.ours for step in found.steps if not step.checkpointing}

    full, lora, frozen = kept(), kept(lora_rank=4), kept(lora_rank=4, lora_fa=True)
    assert lora["exact"] > 0.9 * full["exact"]
    assert frozen["exact"] < 0.5 * full["exact"]


def test_patterns_choose_the_layers(tokenizer: PreTrainedTokenizerBase) -> None:
    wrapped = add_lora(small(BertForSequenceClassification, tokenizer), 4, layers=["*.query", "*.value"])
    adapted = {name.partition(".lora_A")[0] for name, _ in wrapped.named_parameters() if "lora_A" in name}
    assert {name.rpartition(".")[2] for name in adapted} == {"query", "value"}
    with pytest.raises(InputError, match="layers='nothing' fits none"):
        add_lora(small(BertForSequenceClassification, tokenizer), 4, layers=["nothing"])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"lora_rank": 0}, "lora_rank=0: must be at least 1"),
        ({"lora_alpha": 0.0, "lora_rank": 1}, "lora_alpha=0.0: must be greater than 0"),
        ({"lora_alpha": 2.0}, "lora_alpha=2.0 needs lora_rank"),
        ({"lora_fa": True}, "lora_fa=True needs lora_rank"),
        ({"lora_rank": 2, "fsdp": True}, "fsdp=True with lora_rank"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        FinetuneConfig(**fields)


def test_without_peft_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"pip install 'wtacrs\[peft\]'"):
        FinetuneConfig(lora_rank=4)
