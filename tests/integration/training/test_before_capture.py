"""Captures of a model after some steps, beside its earlier state, and of new models of other architectures."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from support.models import bert_batch, t5_batch, tiny_bert, tiny_t5
from support.runs import NUMBERS, TASK, same_weights, tiny
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from wtacrs.estimators import InputError, row_norms
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.layers.linear_layers import is_linear_layer
from wtacrs.integration.measure.capture import capture
from wtacrs.integration.models.opening import open_model
from wtacrs.integration.models.small_models import NEW_MODELS, check_new_writes_text, is_new, new_model
from wtacrs.integration.studies.capture import capture_task
from wtacrs.integration.tasks.batches import task_batches, without_captured
from wtacrs.integration.training.before_capture import train_for_capture


def moved(model: nn.Module, by: float = 0.05) -> nn.Module:
    """The same model in another state."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return other


@pytest.mark.parametrize(("build", "batch"), [(tiny_t5, t5_batch), (tiny_bert, bert_batch)])
def test_stale_norms_are_those_of_the_earlier_model(build, batch, tmp_path: Path) -> None:
    model, earlier = build(), moved(build())
    found = capture(model, [batch(), batch()], tmp_path / "c.safetensors", earlier=earlier)
    alone = capture(earlier, [batch(), batch()], tmp_path / "e.safetensors")
    now = capture(model, [batch(), batch()], tmp_path / "n.safetensors")
    assert list(found) == list(alone) == list(now)
    for entry in found:
        assert torch.equal(found[entry].stale, row_norms(alone[entry].dy).float())
        assert torch.equal(found[entry].dy, now[entry].dy)
        assert torch.equal(found[entry].x, now[entry].x)
        assert (found[entry].stale[~found[entry].mask] == 0).all()
        assert now[entry].stale is None
    assert any(not torch.equal(found[e].stale, row_norms(now[e].dy).float()) for e in found)


def test_stale_norms_by_hand_in_one_layer(tmp_path: Path) -> None:
    """From autograd alone: the norms of the gradient by the layer's output."""
    model, earlier = tiny_bert(), moved(tiny_bert())
    name = "bert.encoder.layer.0.intermediate.dense"
    outputs: list[torch.Tensor] = []
    handle = earlier.get_submodule(name).register_forward_hook(lambda _, __, output: outputs.append(output))
    loss = earlier(**bert_batch()).loss
    handle.remove()
    (dy,) = torch.autograd.grad(loss, outputs)
    found = capture(model, [bert_batch()], tmp_path / "c.safetensors", earlier=earlier)
    torch.testing.assert_close(found[f"{name}#0"].stale, dy.reshape(-1, dy.shape[-1]).norm(dim=1))


def test_the_earlier_model_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    model = tiny_t5(dropout=0.3)
    captures = []
    for earlier in (None, moved(model)):
        torch.manual_seed(5)
        captures.append(capture(model, [t5_batch()] * 2, tmp_path / "c.safetensors", earlier=earlier))
        captures[-1] = {entry: captures[-1][entry].dy for entry in captures[-1]}
    assert all(torch.equal(captures[0][entry], captures[1][entry]) for entry in captures[0])


def test_an_earlier_model_may_be_converted_but_must_have_the_same_layers(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    earlier = moved(tiny_bert())
    stock = capture(tiny_bert(), [bert_batch()], path, earlier=earlier)
    norms = {entry: stock[entry].stale for entry in stock}
    approximate_(earlier, "crs(budget=0.3)", min_elements=0)
    converted = capture(tiny_bert(), [bert_batch()], path, earlier=earlier)
    assert all(torch.equal(converted[entry].stale, norms[entry]) for entry in norms)
    path.unlink()
    with pytest.raises(InputError, match=r"earlier=T5.*: the model has a layer 'bert\.encoder\.layer\.0.*'"):
        capture(tiny_bert(), [bert_batch()], path, earlier=tiny_t5())
    extra = moved(tiny_bert())
    extra.more = nn.Linear(3, 3)
    with pytest.raises(InputError, match="the earlier one has a layer 'more', the model has not"):
        capture(tiny_bert(), [bert_batch()], path, earlier=extra)
    wide = moved(tiny_bert())
    wide.classifier = nn.Linear(32, 7)
    with pytest.raises(InputError, match=r"the weight of 'classifier' is \[7, 32\], not \[2, 32\]"):
        capture(tiny_bert(), [bert_batch()], path, earlier=wide)
    frozen = moved(tiny_bert())
    for parameter in frozen.bert.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(InputError, match=r"earlier: layer bert\.encoder.* gets no gradient"):
        capture(tiny_bert(), [bert_batch()], path, earlier=frozen)
    assert not path.exists()


SETTINGS = {"lr": 3e-3, "batch_size": 8, "max_length": 24}


def test_the_copy_is_the_state_so_many_steps_before(tokenizer: PreTrainedTokenizerBase) -> None:
    model, shorter, start = (tiny(tokenizer, dropout=0.1) for _ in range(3))
    earlier = train_for_capture(model, tokenizer, TASK, steps=5, age=2, **SETTINGS)
    assert earlier is not None
    assert not same_weights(earlier, model)
    # without warm-up the first steps of a longer training are those of a shorter one
    train_for_capture(shorter, tokenizer, TASK, steps=3, **SETTINGS)
    assert same_weights(earlier, shorter)
    assert train_for_capture(tiny(tokenizer), tokenizer, TASK, steps=1, **SETTINGS) is None
    first = train_for_capture(tiny(tokenizer, dropout=0.1), tokenizer, TASK, steps=2, age=2, **SETTINGS)
    assert first is not None
    assert same_weights(first, start)
    with pytest.raises(InputError, match="age=6: must be from 1 to after=5"):
        train_for_capture(model, tokenizer, TASK, steps=5, age=6, **SETTINGS)


def test_training_sees_other_examples_than_the_capture(tokenizer: PreTrainedTokenizerBase) -> None:
    rest = without_captured(TASK, 12, seed=4)
    batches = task_batches(TASK, tokenizer, text_to_text=True, batches=3, batch_size=4, max_length=24, seed=4)
    captured = [tokenizer.decode(row, skip_special_tokens=True).strip() for b in batches for row in b["input_ids"]]
    left = {example.text for example in rest.train}
    assert (len(captured), len(left)) == (12, 20)
    assert left.isdisjoint(captured)
    assert left | set(captured) == {example.text for example in TASK.train}
    assert rest.dev == TASK.dev
    with pytest.raises(InputError, match="all 32 training examples are captured"):
        without_captured(TASK, 32, seed=4)


def test_batches_by_length_are_the_same_examples_with_less_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    lengths = (1, 9, 2, 8, 3, 7, 4, 6) * 4
    task = replace(
        TASK, train=tuple(replace(TASK.train[i], text=" ".join(words[:n])) for i, n in enumerate(lengths))
    )
    sizes = {"text_to_text": True, "batches": 4, "batch_size": 4, "max_length": 64, "seed": 4}
    mixed = list(task_batches(task, tokenizer, **sizes))
    by_length = list(task_batches(task, tokenizer, True, **sizes))

    def texts(batches: list[dict[str, Tensor]]) -> list[str]:
        return sorted(tokenizer.decode(row, skip_special_tokens=True) for b in batches for row in b["input_ids"])

    def padding(batches: list[dict[str, Tensor]]) -> int:
        return sum(int((b["attention_mask"] == 0).sum()) for b in batches)

    assert texts(by_length) == texts(mixed)
    assert padding(by_length) < padding(mixed)
    spans = sorted((int(s.min()), int(s.max())) for b in by_length for s in [b["attention_mask"].sum(1)])
    assert all(first[1] <= then[0] for first, then in pairwise(spans))
    again = task_batches(task, tokenizer, True, **sizes)
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(by_length, again, strict=True))


@pytest.mark.parametrize("name", NEW_MODELS)
@pytest.mark.parametrize("task", [TASK, NUMBERS])
def test_new_models_are_trained_and_captured(name: str, task, tokenizer, tmp_path: Path) -> None:
    model = new_model(name, tokenizer, task, seed=1)
    assert same_weights(model, new_model(name, tokenizer, task, seed=1))
    assert not same_weights(model, new_model(name, tokenizer, task, seed=2))
    earlier = train_for_capture(model, tokenizer, task, steps=2, age=1, **SETTINGS)
    found = capture_task(
        model, tokenizer, task, tmp_path / "c.safetensors", batches=1, batch_size=6, max_length=24,
        earlier=earlier, metadata={"step": 2, "age": 1},
    )  # fmt: skip
    linears = [n for n, module in model.named_modules() if is_linear_layer(module)]
    assert sorted(found.layers) == sorted(linears)
    assert len(linears) >= 2 * 4 + 1
    assert all(found[entry].stale is not None for entry in found)
    assert (found.metadata["model"], found.metadata["age"]) == (f"small {name.replace(':', ' ')}", 1)


def test_a_published_size_is_built_untrained(tokenizer: PreTrainedTokenizerBase) -> None:
    model, _ = open_model("new:t5-small", None, TASK, 0)
    assert (model.config.d_model, len(model.encoder.block), model.name_or_path) == (512, 6, "new t5-small")
    assert model.lm_head.weight is model.shared.weight
    assert float(model.shared.weight.detach().std()) == pytest.approx(0.05, rel=0.05)  # scaled once
    check_new_writes_text("new:t5-small")
    with pytest.raises(InputError, match="has a classification head"):
        check_new_writes_text("new:bert-base")
    with pytest.raises(InputError, match=r"did you mean new:t5-base"):
        new_model("new:t5-basis", tokenizer, TASK)


def test_new_models_are_asked_for_by_name(tokenizer: PreTrainedTokenizerBase) -> None:
    assert is_new("new:bert")
    assert not is_new("bert")
    assert not is_new(None)
    state = torch.random.get_rng_state()
    model, _ = open_model("new:opt", None, TASK, 0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.config.num_labels == len(TASK.labels)
    with pytest.raises(InputError, match=r"model='new:lama': did you mean new:llama\?.*new:bert.*can be built"):
        new_model("new:lama", tokenizer, TASK)
