"""A task from own files: what is read is what was written, and a bad row is told by its place."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from wtacrs.estimators.core.errors import InputError, WtacrsWarning
from wtacrs.integration.tasks.base import TaskData, digest
from wtacrs.integration.tasks.own_files import OwnFiles, own_task
from wtacrs.integration.tasks.own_rows import read_rows

Rows = Sequence[dict[str, object]]


def write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_parquet(path: Path, rows: Rows) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "csv": write_csv,
    "tsv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: bool(text.strip()))


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5), st.sampled_from(sorted(WRITERS)))
def test_any_text_comes_back(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], kind: str
) -> None:
    """Quotes, delimiters, line ends of every sort and marks inside a text are part of it."""
    path = tmp_path_factory.mktemp("texts") / f"rows.{kind}"
    WRITERS[kind](path, [{"a": a, "b": b} for a, b in pairs])
    assert [(row.fields["a"], row.fields["b"]) for row in read_rows("--train", path).rows] == pairs


def files(folder: Path, train: str, dev: str, **options: object) -> OwnFiles:
    """Two CSV files of this content."""
    for name, content in (("train", train), ("dev", dev)):
        (folder / f"{name}.csv").write_bytes(content.encode())
    chosen = {"text": "text", "label": "label"} | options
    return OwnFiles(folder / "train.csv", folder / "dev.csv", **chosen)  # type: ignore[arg-type]


def loaded(folder: Path, train: str, dev: str, **options: object) -> TaskData:
    return own_task(files(folder, train, dev, **options))


def test_names_are_classes_in_sorted_order(tmp_path: Path) -> None:
    task = loaded(tmp_path, 'text,label\nfine,very good\n"a\nb, c",bad\n', "text,label\nso so, bad \n")
    assert task.name == "train.csv"
    assert task.labels == ("bad", "very good")
    assert [(e.text, e.target, e.label, e.parts) for e in task.train] == [
        ("fine", "very good", 1, ("fine",)),
        ("a\nb, c", "bad", 0, ("a\nb, c",)),
    ]
    assert [e.label for e in task.dev] == [0]
    assert task.metrics == ("accuracy", "macro_f1")
    assert task.given["train"] == "/".join((tmp_path / "train.csv").parts[-2:])
    assert task.given["examples"] == digest(task)
    assert str(tmp_path) not in str(task.given)
    assert "2 classes: 'bad', 'very good'" in task.source


def test_whole_numbers_are_classes_in_numeric_order(tmp_path: Path) -> None:
    task = loaded(tmp_path, "text,label\na,10\nb,9\nc,-1\n", "text,label\nd,9\n")
    assert task.labels == ("-1", "9", "10")
    assert "unless --label-kind numbers" in task.source


@pytest.mark.parametrize(
    ("labels", "scale", "targets"),
    [
        (("1.0", "3.72"), (1.0, 3.8), ("1.0", "3.7")),
        (("0", "0.5", "1"), (0.0, 1.0), ("0.00", "0.50", "1.00")),
        (("0", "104.6"), (0.0, 105.0), ("0", "105")),
        (("-1e3", "1e3"), (-1000.0, 1000.0), ("-1000", "1000")),
    ],
)
def test_numbers_are_regression_on_the_scale_of_training(
    labels: tuple[str, ...], scale: tuple[float, float], targets: tuple[str, ...], tmp_path: Path
) -> None:
    rows = "".join(f"t{i},{label}\n" for i, label in enumerate(labels))
    task = loaded(tmp_path, f"text,label\n{rows}", "text,label\nd,0.7\n", label_kind="numbers")
    assert task.labels is None
    assert task.regression
    assert task.scale == pytest.approx(scale)
    assert tuple(e.target for e in task.train) == targets
    assert [e.label for e in task.train] == [float(label) for label in labels]
    assert all(scale[0] <= float(e.target) <= scale[1] for e in task.train)


def test_kind_of_labels_can_be_said(tmp_path: Path) -> None:
    whole = ("text,label\na,1\nb,5\n", "text,label\nc,2\n")
    assert loaded(tmp_path, *whole, label_kind="numbers").labels is None
    broken = ("text,label\na,1.0\nb,0.0\n", "text,label\nc,1.0\n")
    assert loaded(tmp_path, *broken).labels is None
    assert loaded(tmp_path, *broken, label_kind="classes").labels == ("0.0", "1.0")


def test_targets_are_free_text_and_pairs_have_their_columns(tmp_path: Path) -> None:
    content = "text,more,label\nA b,C,Ans Wer\nD,E,x\n"
    task = loaded(tmp_path, content, "text,more,label\nF,G,x\n", label=None, target="label", text2="more")
    assert task.free_text
    assert not task.regression
    assert task.train[0].text == "text: A b more: C"
    assert (task.train[0].target, task.train[0].label, task.train[0].parts) == ("Ans Wer", "Ans Wer", ("A b", "C"))
    assert task.metrics[0] == "chrf"
    assert 0 <= task.majority <= 1


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        ("text,label\na,x\nb,y,z\n", "text,label\nc,x\n", "train.csv, line 3: 3 fields, the header has 2"),
        ('text,label\n"a\nb",x\n\n  ,y\n', "text,label\nc,x\n", "train.csv, line 5: 'text' is empty"),
        ("text,label\na,x\nb,\n", "text,label\nc,x\n", "train.csv, line 3: 'label' holds nothing"),
        ('text,label\na,x\n"b,y\nc,x\n', "text,label\nc,x\n", "train.csv, line 3: unexpected end of data"),
        ('text,label\na,x\n"b"c,y\n', "text,label\nc,x\n", "train.csv, line 3: .*ends with one"),
        ("text,label\na,x\nb,y\n", "text,label\nc,x\nd,z\n", "dev.csv, line 3: label 'z' does not occur in"),
        ("text,label\na,1.5\nb,2\nc,n/a\n", "text,label\nd,1\n", "line 4: label 'n/a' is no number"),
        ("text,label\na,1.5\nb,2\n", "text,label\nd,nan\n", "dev.csv, line 2: label 'nan' is no number"),
        ("text,label\na,1.5\nb,1.50\n", "text,label\nd,1\n", "every 'label' is 1.5"),
        ("text,label\na,x\nb,x\n", "text,label\nd,x\n", "at least two classes"),
        ("text,label,text\na,x,b\n", "text,label\nd,x\n", "line 1: the column 'text' occurs twice"),
        ("Text,label\na,x\n", "text,label\nd,x\n", "did you mean 'Text'\\? it has 'Text', 'label'"),
        ("text,label\na,x\nb,y\n", "text\nd\n", "--label 'label' is no column of .*dev.csv"),
        ("text,label\n", "text,label\nd,x\n", r"has a header \(text, label\) and no rows"),
        ("", "text,label\nd,x\n", "is empty"),
    ],
)
def test_a_bad_row_is_told_by_its_line(train: str, dev: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        loaded(tmp_path, train, dev)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('["a", "x"]', "a JSON object per line is needed, this is a list"),
        ('{"text": "a", "label": "x"', "no JSON object"),
        ('{"text": "a", "text": "b", "label": "x"}', "a key occurs twice"),
        ('{"text": ["a"], "label": "x"}', r"'text' holds \['a'\]; a text is needed"),
        ('{"text": null, "label": "x"}', "'text' holds nothing"),
        ('{"label": "x"}', "there is no 'text'"),
        ('{"text": "a"}', "there is no 'label'"),
        ('{"text": "a", "label": null}', "'label' holds nothing"),
        ('{"text": "a", "label": NaN}', "'label' holds nan"),
        ('{"text": "a", "label": {"x": 1}}', "a name or a number is needed"),
        ('{"text": "\\ud800", "label": "x"}', "half of a surrogate pair"),
    ],
)
def test_a_bad_json_line_is_told(line: str, message: str, tmp_path: Path) -> None:
    good = '{"text": "a\u2028b", "label": "x"}\n\n{"text": "c", "label": "y"}\n'
    (tmp_path / "train.jsonl").write_text(good + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"train.jsonl, line 4: .*{message}"):
        own_task(OwnFiles(tmp_path / "train.jsonl", text="text", label="label"), needs_dev=False)


def test_a_missing_value_of_parquet_is_told_by_its_row(tmp_path: Path) -> None:
    write_parquet(tmp_path / "t.parquet", [{"text": "a", "label": 1}, {"text": "b", "label": None}])
    with pytest.raises(InputError, match=r"t.parquet, row 2: 'label' holds nothing"):
        own_task(OwnFiles(tmp_path / "t.parquet", text="text", label="label"), needs_dev=False)
    (tmp_path / "t.parquet").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        own_task(OwnFiles(tmp_path / "t.parquet", text="text", label="label"), needs_dev=False)


@pytest.mark.parametrize("folder", [True, False])
def test_classes_of_datasets_keep_their_names_and_order(folder: bool, tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["z", "a", "unused"])})
    made = Dataset.from_dict({"text": ["one", "two"], "label": [1, 0]}, features=features)
    path = tmp_path / ("saved" if folder else "saved.parquet")
    made.save_to_disk(str(path)) if folder else made.to_parquet(str(path))
    task = own_task(OwnFiles(path, text="text", label="label"), needs_dev=False)
    assert task.labels == ("z", "a", "unused")
    assert [e.label for e in task.train] == [1, 0]
    assert not task.dev


def test_a_folder_of_several_splits_must_be_named(tmp_path: Path) -> None:
    DatasetDict({"fit": Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]})}).save_to_disk(
        str(tmp_path / "d")
    )
    with pytest.raises(InputError, match=r"several splits; name one: .*/d/fit"):
        own_task(OwnFiles(tmp_path / "d", text="text", label="label"), needs_dev=False)
    assert own_task(OwnFiles(tmp_path / "d/fit", text="text", label="label"), needs_dev=False).name == "d/fit"
    with pytest.raises(InputError, match="no folder that datasets"):
        own_task(OwnFiles(tmp_path, text="text", label="label"), needs_dev=False)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_marks_say_the_encoding(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("text,label\nä,x\n€,y\n".encode(encoding))
    found = read_rows("--train", tmp_path / "t.csv")
    assert found.columns == ("text", "label")
    assert [row.fields["text"] for row in found.rows] == ["ä", "€"]


def test_another_encoding_is_said_or_told_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("text,label\na,x\nä,y\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"line 3: not utf-8 text .*--encoding"):
        read_rows("--train", path)
    assert read_rows("--train", path, "cp1252").rows[1].fields["text"] == "ä"
    with pytest.raises(InputError, match="encoding='cp12520' is unknown"):
        read_rows("--train", path, "cp12520")


def test_fields_may_be_longer_than_the_csv_module_allows(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    write_csv(tmp_path / "t.csv", [{"text": "a" * 200_000}])
    assert len(str(read_rows("--train", tmp_path / "t.csv").rows[0].fields["text"])) == 200_000
    assert csv.field_size_limit() == before


ROWS = "text,label\n" + "".join(f"text {i},{'xy'[i % 2]}\n" for i in range(20))


def test_a_share_of_the_rows_is_dev_whatever_the_seed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(ROWS)
    one = OwnFiles(tmp_path / "t.csv", text="text", label="label", dev_share=0.2)
    tasks = [own_task(one, seed=seed) for seed in (0, 1)]
    assert tasks[0] == tasks[1]
    assert len(tasks[0].dev) == 4
    assert sorted(e.text for e in (*tasks[0].train, *tasks[0].dev)) == sorted(f"text {i}" for i in range(20))
    assert "share of 0.2" in tasks[0].source
    limited = own_task(one, train_limit=5, dev_limit=2, seed=3)
    assert (len(limited.train), len(limited.dev)) == (5, 2)


def test_texts_of_both_files_are_counted(tmp_path: Path) -> None:
    with pytest.warns(WtacrsWarning, match="1 of 2 dev texts .* are training texts too"):
        loaded(tmp_path, ROWS, "text,label\ntext 3,x\nother,y\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded(tmp_path, ROWS, "text,label\nother,y\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": None}, "needs --text"),
        ({"label": None}, "needs --label COLUMN"),
        ({"target": "text"}, "needs --label COLUMN"),
        ({"label_kind": "ints"}, "'ints' must be classes or numbers"),
        ({"max_target_length": 4}, "--max-target-length goes with --target"),
        ({"label": None, "target": "label", "label_kind": "classes"}, "--label-kind goes with --label"),
        ({"dev_share": 0.1}, "--dev, --dev-share"),
        ({"dev": None}, "needs --dev FILE, or --dev-share"),
        ({"dev": None, "dev_share": 1.5}, "must lie between 0 and 1"),
        ({"dev": Path("missing.csv")}, "--dev=missing.csv does not exist"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        own_task(
            OwnFiles(**{**files(tmp_path, ROWS, ROWS).__dict__, **options})  # type: ignore[arg-type]
        )


def test_one_file_is_not_both(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(ROWS)
    with pytest.raises(InputError, match="are the same file"):
        own_task(OwnFiles(tmp_path / "t.csv", tmp_path / "x" / ".." / "t.csv", text="text", label="label"))


@pytest.mark.parametrize(("name", "message"), [("t.json", "JSON lines"), ("t.xlsx", "accepted are .csv")])
def test_other_kinds_of_files(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("[]")
    with pytest.raises(InputError, match=message):
        read_rows("--train", tmp_path / name)
