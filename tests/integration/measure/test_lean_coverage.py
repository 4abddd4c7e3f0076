"""What is said of a model ahead is what `lean_` then does, and nothing is done."""

from __future__ import annotations

import sys

import pytest
from support.architectures import ARCHITECTURES, build
from support.models import tiny_bert
from torch import nn

from wtacrs.integration import approximate_, lean_
from wtacrs.integration.cli import main
from wtacrs.integration.layers.lean.convert import lean_ahead
from wtacrs.integration.layers.lean.options import HeadMode, LeanOptions
from wtacrs.integration.measure.lean_coverage import lean_coverage
from wtacrs.integration.tables.lean_layers import lean_table

WORDS = pytest.mark.parametrize(
    "words", ["neighbours", "attention,head,8-bit", "attention-again,head-again,quick-dropout"]
)


def traces(model: nn.Module) -> list[object]:
    """Classes, attributes and hooks of all modules, and what their configs say of attention."""
    return [
        (
            name,
            type(module),
            sorted(vars(module)),
            len(module._forward_hooks) + len(module._forward_pre_hooks),
            getattr(getattr(module, "config", None), "_attn_implementation", None),
        )
        for name, module in model.named_modules()
    ]


@WORDS
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_said_ahead_is_done(name: str, words: str, tokenizer) -> None:
    model, options = build(name, tokenizer), LeanOptions.parse(words)
    before = traces(model)
    ahead, listed = lean_ahead(model, options), lean_coverage(model, options)
    assert traces(model) == before
    done = lean_(model, **options.arguments())
    assert ahead == done
    assert (ahead.found, ahead.stays) == (done.found, done.stays)
    assert (ahead.attention, ahead.head) == (done.attention, done.head)
    reasons = {reason for part in (done.attention, done.head) if part is not None for reason in part.values()}
    stock = {entry.what for entry in listed if not entry.lean}
    assert set(done.stays.values()) <= stock
    assert all(any(what.endswith(reason) for what in stock) for reason in reasons)
    assert [entry for entry in listed if entry.pattern in done] != []
    assert lean_coverage(model, options) == listed  # of a lean model too
    assert lean_table(name, listed).row_count == len(listed)


def test_attention_and_output_layer_that_are_not_asked_for_are_told(tokenizer) -> None:
    found = lean_coverage(build("new:llama", tokenizer))
    assert [entry.what for entry in found if entry.what.startswith("attention")] == [
        "attention: not asked for by attention or attention-again"
    ]
    assert any(entry.what.startswith("output layer") and not entry.lean for entry in found)
    told = {entry.what for entry in lean_coverage(build("new:t5-gated", tokenizer))}
    assert "output layer: not asked for by head or head-again" in told


@pytest.mark.parametrize("again", [None, "again"])
def test_a_lean_output_layer_is_found_to_be_one_when_asked_again(again: HeadMode | None, tokenizer) -> None:
    model = build("new:t5-gated", tokenizer)
    once = lean_(model, head="forward")
    twice = lean_(model, head=again)
    assert once.found["lm_head"] == twice.found["lm_head"]


def test_modules_of_one_kind_are_counted() -> None:
    found = {entry.pattern: entry for entry in lean_coverage(tiny_bert())}
    layers = sum(name.endswith("output.dense") for name, _ in tiny_bert().named_modules()) // 2
    assert found["bert.encoder.layer.*.output.dense"].modules == layers
    assert found["bert.encoder.layer.*.output.dense"].kind == "Linear"


def test_a_model_with_estimated_layers_and_one_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 2), nn.Tanh())
    approximate_(model, {"0": "crs(budget=0.5)"})
    before = traces(model)
    monkeypatch.delitem(sys.modules, "transformers", raising=False)
    found = lean_coverage(model)
    assert traces(model) == before
    assert [(entry.kind, entry.lean) for entry in found][:4] == [
        ("Linear", True),
        ("GELU", True),
        ("Linear", True),
        ("Tanh", False),
    ]
    assert lean_coverage(nn.Linear(3, 3))[0].what == "exact linear layer"


def test_the_command_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["layers", "--model", "new:opt", "--task", "docstrings", "--lean", "attention,8-bit"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "keep less" in shown
    assert main(["layers", "--model", "new:opt", "--lean", "attenton"]) != 0
    assert main(["layers", "--model", "new:opt", "--lean", "head", "--layers", "*"]) != 0
