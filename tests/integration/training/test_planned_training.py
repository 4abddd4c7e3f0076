"""Training by a plan: what `finetune` and the callback take, and that a run goes on as it would have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import VOCABULARY
from support.runs import CONFIG, TASK, same_weights
from transformers import (
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
)

from wtacrs.estimators import InputError
from wtacrs.integration.models.loading import small_t5
from wtacrs.integration.training.callback import WtacrsCallback
from wtacrs.integration.training.run import finetune
from wtacrs.validation.records.plan import BlockChoices, Choice

PLAN = BlockChoices(
    blocks={
        "encoder.block.0": Choice(estimator="wta_crs(budget=0.3)", lean="neighbours"),
        "encoder.block.1": Choice(checkpointed=True),
        "decoder.block.0": Choice(lean="neighbours", checkpointed=True),
    },
    head="again",
)
EXACT = BlockChoices(blocks={"encoder.block.0": Choice(checkpointed=True)})


def tiny(tokenizer: PreTrainedTokenizerBase) -> T5ForConditionalGeneration:
    return small_t5(tokenizer, d_model=32, layers=2, heads=2, d_ff=64, dropout=0.1)


def test_finetune_by_a_plan(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    model = tiny(tokenizer)
    config = CONFIG.but(steps=4, eval_every=4, plan=PLAN, out=tmp_path)
    kinds = {name: type(part) for name, part in model.named_modules()}
    result = finetune(config, TASK, model, tokenizer)
    assert result.estimator == config.method == f"plan {PLAN.digest}"
    assert result.converted == 6
    assert result.stamp.inputs["plan"] == PLAN.digest
    assert {name: type(part) for name, part in model.named_modules()} == kinds
    with pytest.raises(InputError, match="config plan="):
        finetune(config.but(plan=EXACT, resume=True, steps=4), TASK, tiny(tokenizer), tokenizer)


def test_an_exact_plan_trains_as_exact_training_does(tokenizer: PreTrainedTokenizerBase) -> None:
    models = [tiny(tokenizer), tiny(tokenizer)]
    for model, plan in zip(models, (None, EXACT), strict=True):
        finetune(CONFIG.but(steps=3, eval_every=3, plan=plan), TASK, model, tokenizer)
    assert same_weights(*models)


@pytest.mark.parametrize("changes", [{"estimator": "crs(budget=0.5)"}, {"layers": ("*",)}, {"lora_rank": 2}])
def test_a_plan_stands_alone(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="a plan says it of every block"):
        CONFIG.but(plan=PLAN, **changes)


def trainer(out: Path, callback: WtacrsCallback | None, **changes: Any) -> Seq2SeqTrainer:
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "vocab_size": VOCABULARY}
    model = T5ForConditionalGeneration(T5Config(**sizes, dropout_rate=0.1, decoder_start_token_id=0))
    tokens = torch.randint(2, VOCABULARY, (12, 12), generator=torch.Generator().manual_seed(1))
    data = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row[:3]} for row in tokens]
    settings: dict[str, Any] = {
        "max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "save_strategy": "no",
        "use_cpu": True, "disable_tqdm": True, "report_to": "none", "seed": 5,
    }  # fmt: skip
    made = Seq2SeqTrainingArguments(str(out), **(settings | changes))
    return Seq2SeqTrainer(
        model=model, args=made, train_dataset=data, callbacks=[] if callback is None else [callback]
    )


def test_the_callback_resumes_bit_by_bit(tmp_path: Path) -> None:
    saved = {"save_strategy": "steps", "save_steps": 2}
    whole = trainer(tmp_path, WtacrsCallback(plan=PLAN, min_elements=0), **saved)
    kinds = {name: type(part) for name, part in whole.model.named_modules()}
    whole.train()
    assert {name: type(part) for name, part in whole.model.named_modules()} == kinds
    resumed = trainer(tmp_path / "again", WtacrsCallback(plan=PLAN, min_elements=0), **saved)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert same_weights(whole.model, resumed.model)
    exact = trainer(tmp_path / "exact", None)
    exact.train()
    assert not same_weights(whole.model, exact.model)
    other = BlockChoices(blocks={"encoder.block.1": Choice(estimator="wta_crs(budget=0.3)")})
    with pytest.raises(InputError, match="was trained by"):
        trainer(tmp_path / "other", WtacrsCallback(plan=other, min_elements=0), **saved).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-2")
        )


def test_an_exact_plan_of_the_callback(tmp_path: Path) -> None:
    """No layer is converted, and the weights are those of a run without it."""
    runs = []
    for place, callback in enumerate((None, WtacrsCallback(plan=EXACT))):
        runs.append(trainer(tmp_path / str(place), callback))  # seeds the generators
        runs[-1].train()
    assert same_weights(runs[0].model, runs[1].model)


def test_the_callback_comes_back_from_its_state() -> None:
    callback = WtacrsCallback(plan=PLAN)
    again = WtacrsCallback(**callback.state()["args"])
    assert again.plan == PLAN
    with pytest.raises(InputError, match="plan: with it estimator, layers and lean must be left out"):
        WtacrsCallback("crs(budget=0.5)", plan=PLAN)
