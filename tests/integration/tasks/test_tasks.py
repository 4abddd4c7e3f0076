"""Tasks from TSV files and the hub, their text-to-text form, and one line for every bad input."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
from support.glue_files import PAIR, SINGLE, named_folder, write_task
from support.hub import told_without_hub

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.tasks import hub
from wtacrs.integration.tasks.base import Example
from wtacrs.integration.tasks.loading import TASKS, load_task

_AB = ("A.", "B.")
SST2 = SINGLE + 'a "good film\t1\nbad , dull\t0\n'


def refusal(*parts: str, **arguments: Any) -> str:
    """The one line `load_task` refuses with, which has to name all these parts."""
    with pytest.raises(InputError) as caught:
        load_task(**arguments)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


@pytest.mark.parametrize(
    ("name", "folder", "row", "expected"),
    [
        ("sst2", "SST-2", "so good\t1", Example("sst2 sentence: so good", "positive", 1, ("so good",))),
        (
            "cola",
            "CoLA",
            "Dog the barks.\t0",
            Example("cola sentence: Dog the barks.", "unacceptable", 0, ("Dog the barks.",)),
        ),
        ("rte", "RTE", "A.\tB.\tentailment", Example("rte sentence1: A. sentence2: B.", "entailment", 0, _AB)),
        ("rte", "RTE", "A.\tB.\t1", Example("rte sentence1: A. sentence2: B.", "not_entailment", 1, _AB)),
        ("wnli", "WNLI", "A.\tB.\t1", Example("wnli sentence1: A. sentence2: B.", "entailment", 1, _AB)),
        ("mrpc", "MRPC", "A.\tB.\t0", Example("mrpc sentence1: A. sentence2: B.", "not_equivalent", 0, _AB)),
        ("stsb", "STS-B", "A.\tB.\t3.750", Example("stsb sentence1: A. sentence2: B.", "3.8", 3.75, _AB)),
        ("stsb", "STS-B", "A.\tB.\t0", Example("stsb sentence1: A. sentence2: B.", "0.0", 0.0, _AB)),
        (
            "qnli",
            "QNLI",
            "A?\tB.\tnot_entailment",
            Example("qnli question: A? sentence: B.", "not_entailment", 1, ("A?", "B.")),
        ),
        (
            "boolq",
            "BoolQ",
            "is a\tB.\tTrue",
            Example("boolq question: is a passage: B.", "True", 1, ("is a", "B.")),
        ),
    ],
)
def test_text_to_text_form(tmp_path: Path, name: str, folder: str, row: str, expected: Example) -> None:
    text = (SINGLE if row.count("\t") == 1 else PAIR) + row + "\n"
    task = load_task(name, data=write_task(tmp_path / folder, text, text))
    assert task.name == name
    assert task.train == task.dev == (expected,)
    assert str(tmp_path / folder) in task.source


def test_the_task_folder_itself_will_do(tmp_path: Path) -> None:
    write_task(tmp_path / "anything", SST2, SST2)
    task = load_task("sst2", data=tmp_path / "anything")
    assert [example.text for example in task.train] == ['sst2 sentence: a "good film', "sst2 sentence: bad , dull"]


def test_line_ends_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    odd = "\ufeff" + "sentence1\tlabel\r\none\rtwo\t1\r\n\r\n\u00e9t\u00e9\u2028!\t0"
    write_task(tmp_path / "SST-2", odd, SST2)
    texts = [example.text for example in load_task("sst2", data=tmp_path).train]
    assert texts == ["sst2 sentence: one\rtwo", "sst2 sentence: \u00e9t\u00e9\u2028!"]


def test_majority_is_that_of_train(tmp_path: Path) -> None:
    write_task(tmp_path / "SST-2", SINGLE + "a\t0\nb\t0\nc\t1\n", SINGLE + "d\t1\ne\t1\nf\t1\ng\t0\n")
    assert load_task("sst2", data=tmp_path).majority == 0.25


def test_majority_of_regression_is_no_correlation(tmp_path: Path) -> None:
    text = PAIR + "a\tb\t1.0\nc\td\t4.2\n"
    task = load_task("stsb", data=write_task(tmp_path / "STS-B", text, text))
    assert task.labels is None
    assert task.metrics == ("pearson", "spearman")
    assert task.majority == 0.0


def test_limits_take_a_seeded_growing_subset(tmp_path: Path) -> None:
    rows = SINGLE + "".join(f"sentence {i}\t{i % 2}\n" for i in range(50))
    write_task(tmp_path / "SST-2", rows, rows)

    def drawn(limit: int, seed: int) -> tuple[Example, ...]:
        return load_task("sst2", data=tmp_path, train_limit=limit, dev_limit=5, seed=seed).train

    everything = load_task("sst2", data=tmp_path).train
    assert drawn(10, 1) == drawn(10, 1) == drawn(20, 1)[:10]
    assert drawn(10, 1) != drawn(10, 2)
    assert len(set(drawn(10, 1))) == 10
    assert set(drawn(1000, 1)) == set(everything)
    assert len(load_task("sst2", data=tmp_path, dev_limit=5).dev) == 5


def test_a_part_of_the_training_file_is_held_out(tmp_path: Path) -> None:
    rows = SINGLE + "".join(f"sentence {i % 40}\t{i % 2}\n" for i in range(50))  # ten texts twice
    write_task(tmp_path / "SST-2", rows, SINGLE + "its own\t0\n")

    def split(seed: int, limit: int | None = None) -> tuple[set[str], list[str]]:
        task = load_task("sst2", data=tmp_path, held_out=12, train_limit=limit, seed=seed)
        return {e.text for e in task.train}, [e.text for e in task.dev]

    train, dev = split(3)
    assert len(dev) == 12
    assert train.isdisjoint(dev)
    assert len(train | set(dev)) == 40
    assert split(3) == (train, dev)
    assert split(4)[1] != dev
    limited, same = split(3, limit=5)
    assert (len(limited), same) == (5, dev)
    assert limited < train
    assert "12 of its training examples" in load_task("sst2", data=tmp_path, held_out=12).source


@pytest.mark.parametrize("held_out", [0, 2, 7])
def test_what_cannot_be_held_out(held_out: int, tmp_path: Path) -> None:
    write_task(tmp_path / "SST-2", SST2, SST2)
    refusal(f"held_out={held_out}", name="sst2", data=tmp_path, held_out=held_out)
    refusal(f"held_out={held_out}", "docstrings", name="docstrings", held_out=held_out)


def test_docstrings_task() -> None:
    task = load_task("docstrings", train_limit=50, dev_limit=10)
    assert task.labels == ("torch", "numpy", "scipy", "matplotlib", "python")
    assert Counter(example.target for example in task.train) == dict.fromkeys(task.labels, 10)
    assert all(example.text.startswith("docstrings sentence: ") for example in task.train)
    assert all(task.labels[int(example.label)] == example.target for example in task.train + task.dev)
    assert task.majority == 0.2
    assert all(example.text.endswith(example.parts[0]) for example in task.train)
    assert "50 train and 10 dev examples, 5 labels" in task.description
    assert "torch" in task.source
    assert len(load_task("docstrings").train) == 10_000


def test_unknown_task() -> None:
    refusal("task='sst'", "did you mean sst2", *TASKS, name="sst")
    assert "did you mean" not in refusal("task='frobnicate'", *TASKS, name="frobnicate")


@pytest.mark.parametrize("argument", ["train_limit", "dev_limit"])
@pytest.mark.parametrize("limit", [0, -3])
def test_limit_below_one(argument: str, limit: int) -> None:
    refusal(f"{argument}={limit}", "1", name="docstrings", **{argument: limit})


def test_docstrings_takes_no_folder(tmp_path: Path) -> None:
    refusal("data=", str(tmp_path), "no folder", name="docstrings", data=tmp_path)


def test_folder_missing(tmp_path: Path) -> None:
    refusal("data=", str(tmp_path / "none"), "no folder", "RTE/", name="rte", data=tmp_path / "none")
    (tmp_path / "file").touch()
    refusal("no folder", name="rte", data=tmp_path / "file")


def test_file_missing(tmp_path: Path) -> None:
    refusal("train.tsv and dev.tsv missing", str(tmp_path), "RTE/", name="rte", data=tmp_path)
    (tmp_path / "QNLI").mkdir()
    (tmp_path / "QNLI" / "dev.tsv").write_text(PAIR + "a\tb\tentailment\n")
    message = refusal("train.tsv missing in", str(tmp_path / "QNLI"), name="qnli", data=tmp_path)
    assert "dev.tsv missing" not in message


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["no examples", "sentence1, label"]),
        (SINGLE, ["no examples"]),
        ("text\tlabel\na\t1\n", ["line 1", "found: text, label", "columns sentence1, label"]),
        ("sentence1,label\na,1\n", ["line 1", "found: sentence1,label", "tab"]),
        (SINGLE + "a\t1\n\nb\t2\n", ["line 4", "'2'", "negative, positive, 0, 1"]),
        (SINGLE + "a\t1\nb\n", ["line 3", "1 fields", "2"]),
        (SINGLE + "a\tb\t1\n", ["line 2", "3 fields"]),
        (SINGLE + "\t\n", ["line 2", "label ''"]),
    ],
)
@pytest.mark.parametrize("split", ["train.tsv", "dev.tsv"])
def test_malformed_file(tmp_path: Path, content: str, parts: list[str], split: str) -> None:
    write_task(tmp_path / "SST-2", SST2, SST2)
    (tmp_path / "SST-2" / split).write_text(content)
    refusal(str(tmp_path / "SST-2" / split), *parts, name="sst2", data=tmp_path)


@pytest.mark.parametrize("label", ["5.1", "-0.1", "nan", "similar"])
def test_bad_number(tmp_path: Path, label: str) -> None:
    text = f"{PAIR}a\tb\t{label}\n"
    write_task(tmp_path / "STS-B", text, text)
    refusal("train.tsv, line 2", repr(label), "0 to 5", name="stsb", data=tmp_path)


def test_not_utf8(tmp_path: Path) -> None:
    write_task(tmp_path / "SST-2", SST2, SST2)
    (tmp_path / "SST-2" / "dev.tsv").write_bytes(b"sentence1\tlabel\n\xff\xfe\t1\n")
    refusal("dev.tsv", "UTF-8", name="sst2", data=tmp_path)


@pytest.mark.parametrize(
    ("name", "repository"),
    [("sst2", "nyu-mll/glue/sst2"), ("stsb", "nyu-mll/glue/stsb"), ("boolq", "google/boolq")],
)
def test_no_network_is_one_line_within_seconds(
    name: str, repository: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    start = time.monotonic()
    refusal(repository, "--data DIR", "--task docstrings", "HF_HUB_OFFLINE", name=name)
    assert time.monotonic() - start < 5
    assert capfd.readouterr() == ("", "")


def test_an_unreachable_hub_is_one_line(tmp_path: Path) -> None:
    told = told_without_hub("from wtacrs.integration.tasks.loading import load_task; load_task('rte')", tmp_path)
    assert "nyu-mll/glue/rte" in told
    assert "--task docstrings" in told


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        (
            "sst2",
            {"sentence": ["fine "], "label": [1], "idx": [0]},
            Example("sst2 sentence: fine", "positive", 1, ("fine",)),
        ),
        (
            "qnli",
            {"question": ["A?"], "sentence": ["B."], "label": [1], "idx": [0]},
            Example("qnli question: A? sentence: B.", "not_entailment", 1, ("A?", "B.")),
        ),
        (
            "boolq",
            {"question": ["is a"], "answer": [False], "passage": ["B."]},
            Example("boolq question: is a passage: B.", "False", 0, ("is a", "B.")),
        ),
        (
            "stsb",
            {"sentence1": ["A."], "sentence2": ["B."], "label": [2.6], "idx": [0]},
            Example("stsb sentence1: A. sentence2: B.", "2.6", 2.6, _AB),
        ),
    ],
)
def test_columns_of_the_hub(
    name: str, rows: dict[str, list[Any]], expected: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's own columns and types, without the hub."""
    part = datasets.Dataset.from_dict(rows)
    asked: list[tuple[str, ...]] = []

    def load_dataset(*repository: str) -> datasets.DatasetDict:
        asked.append(repository)
        return datasets.DatasetDict(train=part, validation=part, test=part)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "hub_problem", lambda *_: None)
    task = load_task(name)
    assert asked == [("google/boolq",) if name == "boolq" else ("nyu-mll/glue", name)]
    assert task.train == task.dev == (expected,)
    assert "Hugging Face hub" in task.source


@pytest.mark.parametrize(
    ("name", "train", "dev", "majority"),
    [
        ("sst2", 67_349, 872, 444 / 872),
        ("rte", 2_490, 277, 146 / 277),
        ("mrpc", 3_668, 408, 279 / 408),
        ("cola", 8_551, 1_043, 0.0),
        ("stsb", 5_749, 1_500, 0.0),
        ("wnli", 635, 71, 40 / 71),
    ],
)
def test_the_real_files(name: str, train: int, dev: int, majority: float) -> None:
    """Official sizes; the share of the most frequent class in dev is a known number of the benchmark."""
    task = load_task(name, data=named_folder("WTACRS_GLUE"))
    assert (len(task.train), len(task.dev)) == (train, dev)
    assert task.majority == pytest.approx(majority)
    if task.labels is not None:
        assert {example.target for example in task.dev} == set(task.labels)
    else:
        assert {example.target for example in task.train} <= {f"{i / 5:.1f}" for i in range(26)}


@pytest.mark.parametrize(("name", "folder"), [("qnli", "QNLI"), ("boolq", "BoolQ")])
def test_a_real_folder_without_train(name: str, folder: str) -> None:
    root = named_folder("WTACRS_GLUE")
    if (root / folder / "train.tsv").exists():
        pytest.skip(f"{folder} has a train.tsv here")
    refusal("train.tsv missing in", str(root / folder), name=name, data=root)
