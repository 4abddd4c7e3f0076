"""Lean neighbours in fine-tuning: the weights of a stock run, stock models afterwards, and receipts that say so."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import CONFIG, TASK, bert, check_resuming, tiny, without_times
from torch import nn
from transformers import PreTrainedTokenizerBase, TrainerCallback

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.layers.lean.classes import LeanModule
from wtacrs.integration.layers.lean.convert import lean_
from wtacrs.integration.training.callback import WtacrsCallback
from wtacrs.integration.training.run import finetune
from wtacrs.validation.records.receipt import Receipt, receipt_lines

SHORT = CONFIG.but(steps=6, eval_every=3)
ALL = "attention,head"
UNIFORM = "uniform(budget=0.3)"
"""Draws the same rows whatever their norms, which are all equal after an RMS norm but for rounding."""


def lean_parts(model: nn.Module) -> set[str]:
    return {type(m).__name__ for m in model.modules() if isinstance(m, LeanModule) or "Lean" in type(m).__name__}


def close(one: nn.Module, two: nn.Module, tolerance: float) -> bool:
    """AdamW moves by the sign of tiny gradients: what counts is the distance of a whole tensor."""
    theirs = two.state_dict()
    return all(
        float((value.double() - theirs[name].double()).norm()) <= tolerance * float(value.double().norm() + 1e-3)
        for name, value in one.state_dict().items()
    )


@pytest.mark.parametrize("estimator", [None, UNIFORM])
def test_a_lean_run_ends_with_the_weights_of_a_stock_one(
    estimator: str | None, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Exact, and with the same rows drawn: dropout masks and draws are those of the run without.

    The output layer is left out: a lean one draws among rows with a label alone.
    """
    models = {}
    for lean in (None, ALL):
        models[lean] = tiny(tokenizer, dropout=0.1)
        config = SHORT.but(
            estimator=estimator, lean=lean, layers=("*coder.*",) if estimator else None, batch_size=32
        )
        result = finetune(config, TASK, models[lean], tokenizer)
        assert result.lean == lean
        assert result.method == (config.estimator or "exact") + (f", lean {ALL}" if lean else "")
        assert lean_parts(models[lean]) == set()
        assert "lean" not in models[lean].config._attn_implementation
    assert close(models[None], models[ALL], 1e-3)


def test_a_lean_run_keeps_less_and_its_receipt_says_beside_what(tokenizer: PreTrainedTokenizerBase) -> None:
    found: dict[str | None, Receipt] = {}
    for lean in (None, "neighbours", ALL):
        config = SHORT.but(steps=1, batch_size=32, estimator="wta_crs(budget=0.3)", lean=lean)
        receipt = finetune(config, TASK, tiny(tokenizer, dropout=0.1), tokenizer).receipt
        assert receipt is not None
        found[lean] = receipt
        told = " ".join(receipt_lines(receipt))
        assert ("beside the same lean neighbours" in told) == (lean is not None)
        assert "exact training" in told or lean is not None
    assert found[ALL].kept < found["neighbours"].kept < found[None].kept


def test_what_stays_stock_is_said(tokenizer: PreTrainedTokenizerBase) -> None:
    """A classifier has no output layer over a vocabulary."""
    config = SHORT.but(steps=1, lean="head")
    receipt = finetune(config, TASK, bert(tokenizer, 2), tokenizer).receipt
    assert receipt is not None
    assert list(receipt.stays) == ["output layer of the model"]
    assert any(line.startswith("not lean: output layer of the model") for line in receipt_lines(receipt))


def test_a_killed_lean_run_ends_as_a_whole_one(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """Bit by bit; and a run that goes on with other neighbours is refused."""
    config = SHORT.but(lean=ALL, estimator="wta_crs(budget=0.3)", save_every=3)
    result = check_resuming(config, lambda: tiny(tokenizer, dropout=0.1), tokenizer, tmp_path, 3)
    assert without_times(result)["lean"] == ALL
    other = config.but(out=tmp_path / "part", resume=True, lean=None)
    with pytest.raises(InputError, match=r"config lean=None, but the run in .* had 'attention,head'"):
        finetune(other, TASK, tiny(tokenizer, dropout=0.1), tokenizer)


@pytest.mark.parametrize("lean", ["atention", "attention,attention-again", ""])
def test_other_words_are_refused_before_anything_is_loaded(lean: str) -> None:
    with pytest.raises(InputError, match="lean="):
        CONFIG.but(lean=lean)


class _Look(TrainerCallback):
    """Counts lean parts at every step and where Trainer saves."""

    def __init__(self) -> None:
        self.seen: dict[str, set[int]] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.setdefault("step", set()).add(len(lean_parts(kwargs["model"])))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.setdefault("save", set()).add(len(lean_parts(kwargs["model"])))


@pytest.fixture(name="trained")
def _trained(tmp_path: Path) -> Any:
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, T5Config, T5ForConditionalGeneration

    def make(model: nn.Module | None = None) -> nn.Module:
        torch.manual_seed(0)
        sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "vocab_size": 40}
        return model or T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0))

    def train(callback: WtacrsCallback | None, model: nn.Module | None = None, **options: Any) -> nn.Module:
        generator = torch.Generator().manual_seed(3)
        draw = lambda length: torch.randint(2, 40, (length,), generator=generator)  # noqa: E731
        data = [{"input_ids": draw(12), "labels": draw(3)} for _ in range(12)]
        settings = Seq2SeqTrainingArguments(
            str(tmp_path / "run"), max_steps=4, per_device_train_batch_size=4, learning_rate=1e-3, save_steps=2,
            logging_steps=1, use_cpu=True, disable_tqdm=True, report_to="none", seed=5,
        )  # fmt: skip
        train.look = _Look()  # type: ignore[attr-defined]
        callbacks = [train.look, *([callback] if callback else [])]  # type: ignore[attr-defined]
        trainer = Seq2SeqTrainer(model=make(model), args=settings, train_dataset=data, callbacks=callbacks)
        trainer.train(**options)
        return trainer.model

    train.make, train.folder = make, tmp_path / "run"  # type: ignore[attr-defined]
    return train


@pytest.mark.parametrize("estimator", [None, UNIFORM])
def test_the_callback_trains_a_lean_model_and_gives_a_stock_one_back(
    estimator: str | None, trained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = {"min_elements": 0, "layers": ["*coder.*"] if estimator else None}
    ours = WtacrsCallback(estimator, lean=ALL, measure_every=1, **chosen)
    with caplog.at_level(logging.INFO):
        model = trained(ours)
    assert all(count > 3 for counts in trained.look.seen.values() for count in counts)
    assert lean_parts(model) == set()
    assert "lean" not in model.config._attn_implementation
    plain = WtacrsCallback(estimator, **chosen) if estimator else None
    assert close(model, trained(plain), 1e-3)
    assert ours.receipt is not None
    assert ours.receipt.lean == ALL
    assert f"lean {ALL}" in caplog.text


def test_a_model_that_is_lean_already_stays_lean_in_and_after_training(trained: Any) -> None:
    """Over the checkpoints in between, at which estimated layers are stock for a moment."""
    model = trained.make()
    lean_(model, attention="keep")
    approximate_(model, "wta_crs(budget=0.3)", min_elements=0)
    before = lean_parts(model)
    trained(WtacrsCallback(None), model)
    assert trained.look.seen["step"] == {len(before)}
    assert lean_parts(model) >= before - {"ApproxLinear"}
    assert "lean" in model.config._attn_implementation


def test_a_checkpoint_is_not_continued_with_other_neighbours(trained: Any) -> None:
    trained(WtacrsCallback("wta_crs(budget=0.3)", lean=ALL, min_elements=0))
    other = WtacrsCallback("wta_crs(budget=0.3)", min_elements=0)
    with pytest.raises(InputError, match="lean='attention,head', and is now to be trained with lean=False"):
        trained(other, resume_from_checkpoint=str(trained.folder / "checkpoint-2"))


def test_nothing_to_do_is_refused(trained: Any) -> None:
    with pytest.raises(InputError, match="give one or lean"):
        trained(WtacrsCallback(None))
