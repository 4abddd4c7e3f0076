"""Span corruption and pre-training: nothing of the text is lost, a stopped run ends as a whole one, models load."""

from __future__ import annotations

import gzip
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.cli import refused
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5ForConditionalGeneration

from wtacrs.estimators import InputError
from wtacrs.integration.cli import main
from wtacrs.integration.models.loading import train_tokenizer
from wtacrs.integration.tasks.span_corruption import (
    SpanCorruption,
    corpus_files,
    corrupt,
    piece_length,
    read_pieces,
    sentinels_of,
    spans_of,
)
from wtacrs.integration.training.pretrain import PretrainingConfig, pretrain
from wtacrs.validation.records.pretrain import PretrainingResult
from wtacrs.validation.records.results import load_result

SENTINELS = list(range(-1, -200, -1))
PARAGRAPHS = [f"the {i} ships of the {word} fleet sailed in the year {i * i}" for i in range(40) for word in "abc"]


@given(length=st.integers(2, 300), seed=st.integers(0, 2**30))
def test_input_and_target_together_are_the_text(length: int, seed: int) -> None:
    tokens = list(range(length))
    inputs, targets = corrupt(tokens, SENTINELS, torch.Generator().manual_seed(seed))
    cut, spans = spans_of(length)
    assert [token for token in inputs if token < 0] == SENTINELS[:spans]
    assert [token for token in targets if token < 0] == SENTINELS[: spans + 1]
    assert sum(token >= 0 for token in targets) == cut
    assert targets[0] == SENTINELS[0]
    assert targets[-1] == SENTINELS[spans]
    places = [targets.index(sentinel) for sentinel in SENTINELS[: spans + 1]]
    missing = {targets[a]: targets[a + 1 : b] for a, b in pairwise(places)}
    assert all(missing.values())
    merged = [token for entry in inputs for token in (missing[entry] if entry < 0 else [entry])]
    assert merged == tokens


def test_every_division_occurs_and_none_else() -> None:
    """7 tokens are cut in one span of one: six places, since the first token is always kept; 20 in one of three."""
    seen = {tuple(corrupt(range(7), SENTINELS, torch.Generator().manual_seed(seed))[1]) for seed in range(200)}
    assert seen == {(-1, 6, -2)}  # one span comes last: kept tokens first, then what is cut
    seen = {tuple(corrupt(range(40), SENTINELS, torch.Generator().manual_seed(seed))[1]) for seed in range(300)}
    firsts = {target[1] for target in seen}
    assert spans_of(40) == (6, 2)
    assert firsts == set(range(1, 34))
    assert {target.index(-2) - 1 for target in seen} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("most", [4, 5, 24, 128, 512])
def test_the_longest_piece_that_fits(most: int) -> None:
    def read(length: int) -> int:
        return len(corrupt(range(length), SENTINELS, torch.Generator().manual_seed(0))[0]) + 1

    assert read(piece_length(most)) <= most < read(piece_length(most) + 1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    with gzip.open(folder / "text_train.txt.gz", "wt", encoding="utf-8") as stream:
        stream.write("\n\n".join(PARAGRAPHS))
    (folder / "text_valid.txt").write_text("\n".join(PARAGRAPHS[::7]))
    return folder


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    tokenizer = train_tokenizer(PARAGRAPHS, 300)
    tokenizer.add_tokens([f"<extra_id_{i}>" for i in range(20)])
    tokenizer.save_pretrained(folder)
    return folder


def test_pieces_are_the_text(corpus: Path) -> None:
    tokenizer = train_tokenizer(PARAGRAPHS, 300)
    train, _ = corpus_files(corpus)
    pieces = read_pieces(train, tokenizer, 16)
    ids = [i for paragraph in PARAGRAPHS for i in tokenizer(paragraph, add_special_tokens=False)["input_ids"]]
    assert pieces.flatten().tolist() == ids[: pieces.numel()]
    assert 0 <= len(ids) - pieces.numel() < 16
    assert read_pieces(train, tokenizer, 16, limit=3).shape == (3, 16)


def test_a_piece_is_always_corrupted_alike(vocabulary: Path) -> None:
    pieces = torch.arange(300).reshape(6, 50)
    one, same, other = (SpanCorruption(pieces, SENTINELS, 1, seed=seed) for seed in (3, 3, 4))
    assert [one[i] for i in range(6)] == [same[i] for i in range(6)]
    assert all(one[i] != other[i] for i in range(6))
    assert one[0]["input_ids"][-1] == one[0]["labels"][-1] == 1


CONFIG = PretrainingConfig(steps=8, batch_size=8, max_length=24, save_every=3, lr=3e-3)


def test_a_stopped_run_ends_as_a_whole_one(corpus: Path, vocabulary: Path, tmp_path: Path) -> None:
    config = PretrainingConfig(**{**vars(CONFIG), "estimator": "wta_crs(budget=0.3)"})
    whole = pretrain(config, corpus, str(vocabulary), tmp_path / "whole")
    assert whole.valid_after < whole.valid_before
    assert whole.history[-1].step == 8
    assert load_result(tmp_path / "whole" / "result.json") == whole
    stopped = tmp_path / "stopped"
    (tmp_path / "whole" / "checkpoint-6").rename(tmp_path / "kept")
    stopped.mkdir()
    (tmp_path / "kept").rename(stopped / "checkpoint-6")
    (stopped / "settings.json").write_bytes((tmp_path / "whole" / "settings.json").read_bytes())
    for other in ({"lr": 0.5}, {"size": "mini"}, {"steps": 9}):
        with pytest.raises(InputError, match=f"resume: {next(iter(other))}="):
            pretrain(replace(config, **other), corpus, str(vocabulary), stopped, resume=True)
    resumed = pretrain(config, corpus, str(vocabulary), stopped, resume=True)
    assert without_time(resumed) == without_time(whole)
    one, two = (T5ForConditionalGeneration.from_pretrained(run / "model") for run in (tmp_path / "whole", stopped))
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    exact = pretrain(CONFIG, corpus, str(vocabulary), tmp_path / "exact")
    assert exact.valid_before == whole.valid_before
    assert exact.valid_after != whole.valid_after


def without_time(result: PretrainingResult) -> PretrainingResult:
    return result.model_copy(update={"seconds": 0.0})


def test_the_command_trains_what_the_others_load(
    corpus: Path, vocabulary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pretrain", str(corpus), "--tokenizer", str(vocabulary), "--out", str(tmp_path / "p")]
    assert main([*arguments, "--steps", "2", "--batch-size", "4", "--max-length", "16"]) == 0
    assert "nats per token (exact)" in capsys.readouterr().out
    assert main([*arguments, "--steps", "2"]) == 2
    assert "holds a run already" in capsys.readouterr().err
    out = ["--out", str(tmp_path / "memory"), "--task", "docstrings", "--batch-size", "2", "--max-length", "16"]
    assert main(["memory", "--model", str(tmp_path / "p" / "model"), *out]) == 0


def test_a_vocabulary_from_the_text(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p"
    arguments = ["pretrain", str(corpus), "--vocabulary", "300", "--out", str(out), "--steps", "2"]
    assert main([*arguments, "--batch-size", "4", "--max-length", "16"]) == 0
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    assert sentinels_of(tokenizer)
    result = load_result(out / "result.json")
    assert result.stamp.inputs["vocabulary"] == "300"
    capsys.readouterr()
    assert "give one of them" in refused(capsys, *arguments, "--tokenizer", "t5", "--overwrite")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": "huge"}, "size='huge'"),
        ({"steps": 0}, "steps=0"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"estimator": "csr"}, "estimator='csr': unknown estimator"),
        ({"size": []}, r"size=\[\]"),
        *(
            ({name: True}, f"{name}=True must be an integer from 1")
            for name in ("steps", "batch_size", "save_every")
        ),
        ({"steps": "5"}, "steps='5' must be an integer from 1"),
        ({"train_limit": 0}, "train_limit=0 must be an integer from 1, or None"),
        *(({"lr": lr}, f"lr={lr!r} must be a finite number greater than 0") for lr in (True, "1", float("inf"))),
        ({"max_length": 64.0}, "max_length=64.0 must be an integer from 4"),
        ({"max_length": 3}, "max_length=3"),
        ({"seed": -1}, "seed=-1 must be an integer from 0 to 4294967295"),
        ({"seed": 2**32}, "seed=4294967296 must be an integer from 0 to 4294967295"),
    ],
)
def test_bad_settings_are_refused(unchecked: None, fields: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        PretrainingConfig(**fields)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": {"steps": 3}}, r"config={'steps': 3} must be a PretrainingConfig"),
        ({"corpus": "text"}, "corpus='text' must be a Path"),
        ({"tokenizer": None}, "give one of them"),
        ({"tokenizer": 3}, "tokenizer=3 must be a str"),
        ({"out": "runs"}, "out='runs' must be a Path"),
    ],
)
def test_an_argument_of_another_type_is_named(
    unchecked: None, changes: dict[str, object], words: str, tmp_path: Path
) -> None:
    usual = {"config": CONFIG, "corpus": tmp_path, "tokenizer": "t5", "out": tmp_path / "a"}
    with pytest.raises(InputError, match=words):
        pretrain(**(usual | changes))


def test_bad_corpora_are_refused(corpus: Path, vocabulary: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        pretrain(CONFIG, tmp_path / "missing", str(vocabulary), tmp_path / "a")
    with pytest.raises(InputError, match=r"one file \*train\*"):
        pretrain(CONFIG, tmp_path, str(vocabulary), tmp_path / "a")
    for name, content, words in (
        ("no gzip", b"text", "cannot be read"),
        ("no text", gzip.compress(b"\xff\xfe"), "cannot be read"),
        ("short", gzip.compress(b"word"), "fewer than"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.txt.gz").write_bytes(content)
        (folder / "valid.txt").write_text("x")
        with pytest.raises(InputError, match=words):
            pretrain(CONFIG, folder, str(vocabulary), tmp_path / "a")
    plain = tmp_path / "plain"
    train_tokenizer(PARAGRAPHS, 300).save_pretrained(plain)
    with pytest.raises(InputError, match="it has 0"):
        pretrain(CONFIG, corpus, str(plain), tmp_path / "a")
    with pytest.raises(InputError, match="no checkpoint to resume from"):
        pretrain(CONFIG, corpus, str(vocabulary), tmp_path / "a", resume=True)


def test_sentinels_are_found_in_their_order(vocabulary: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(vocabulary)
    assert tokenizer.convert_ids_to_tokens(sentinels_of(tokenizer)) == [f"<extra_id_{i}>" for i in range(20)]
