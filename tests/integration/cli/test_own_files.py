"""Own files through the commands: trained on, captured, evaluated and predicted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from support.cli import refused

from wtacrs.integration.cli import main
from wtacrs.validation.layers.captures import load_captures
from wtacrs.validation.records.results import load_result
from wtacrs.validation.records.training import TrainingResult

COLUMNS = ("review", "verdict", "score", "answer")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """train.csv and dev.jsonl in the current folder."""
    monkeypatch.chdir(tmp_path)
    rows = [
        (
            f'{"fine" if i % 2 else "dull"} film, "{i}"',
            ("very good", "bad")[i % 2],
            f"{i / 3:.2f}",
            f"Film {i % 3}.",
        )
        for i in range(16)
    ]
    with Path("train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    lines = [json.dumps(dict(zip(COLUMNS, (f"new {row[0]}", *row[1:]), strict=True))) for row in rows[:6]]
    Path("dev.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


FILES = ("--train", "train.csv", "--dev", "dev.jsonl", "--text", "review")
SMALL = ("--steps", "1", "--batch-size", "4", "--max-length", "24")


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def test_a_head_is_trained_evaluated_and_used(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("finetune", *FILES, "--label", "verdict", "--model", "new:bert", *SMALL, "--out", "run")
    assert "2 classes: 'bad', 'very good'" in capsys.readouterr().out
    result = load_result(Path("run/result.json"))
    assert isinstance(result, TrainingResult)
    assert (result.task, result.metric, result.train_size, result.dev_size) == ("train.csv", "accuracy", 16, 6)
    told = {name: result.stamp.inputs[name] for name in ("train", "dev", "text", "label")}
    assert told == {"train": "train.csv", "dev": "dev.jsonl", "text": "review", "label": "verdict"}
    assert json.loads(Path("run/best/config.json").read_text())["id2label"] == {"0": "bad", "1": "very good"}

    run("evaluate", "run", "--out", "e.json")
    assert json.loads(Path("e.json").read_text())["metrics"] == result.history[-1].dev
    run("evaluate", "run/best", "--dev", "train.csv", "--train", "dev.jsonl")
    assert "16 dev examples" in capsys.readouterr().out
    assert "has numbers" in refused(capsys, "evaluate", "run", "--label", "score")
    run("evaluate", "run", "--dev-limit", 3)
    assert "train.csv: 3 dev examples" in capsys.readouterr().out
    assert "own files" in refused(capsys, "evaluate", "run", "--data", ".")

    run("finetune", "--resume", "--out", "run")
    assert "accuracy" in capsys.readouterr().out

    run("predict", "run", "--input", "dev.jsonl", "--out", "p.csv")
    with Path("p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    asked = [json.loads(line) for line in Path("dev.jsonl").read_text().splitlines()]
    assert [row["review"] for row in rows] == [row["review"] for row in asked]
    right = sum(row["prediction"] == one["verdict"] for row, one in zip(rows, asked, strict=True))
    assert right / 6 == pytest.approx(result.history[-1].dev["accuracy"])
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)

    text = Path("train.csv").read_text()
    Path("train.csv").write_text(text.replace("fine", "fair"))
    resumed = ("finetune", *FILES, "--label", "verdict", "--model", "new:bert", *SMALL, "--out", "run", "--resume")
    assert "examples=" in refused(capsys, *resumed)


@pytest.mark.parametrize(
    ("columns", "metric"),
    [(("--label", "verdict"), "accuracy"), (("--label", "score"), "pearson"), (("--target", "answer"), "chrf")],
)
def test_a_model_that_writes(
    columns: tuple[str, ...], metric: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("finetune", *FILES, *columns, *SMALL, "--out", "run")
    result = load_result(Path("run/result.json"))
    assert isinstance(result, TrainingResult)
    assert result.metric == metric
    run("evaluate", "run", "--out", "e.json")
    assert json.loads(Path("e.json").read_text())["metrics"] == result.history[-1].dev
    capsys.readouterr()
    run("predict", "run", "--input", "dev.jsonl", "--out", "-")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 6
    assert all(("answer" in row) == (metric != "chrf") for row in rows)


def test_captures_name_the_files_and_noise_wants_them_again(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ("--train", "train.csv", "--text", "review", "--label", "verdict", "--model", "new:bert")
    sizes = ("--batches", 2, "--batch-size", 4, "--max-length", 24, "--layers", "*intermediate*")
    run("capture", *own, *sizes, "--out", "c.safetensors")
    told = load_captures(Path("c.safetensors")).metadata
    assert told["task"] == "train.csv"
    assert (told["files"]["train"], told["files"]["label"]) == ("train.csv", "verdict")
    lean = (
        "noise",
        "c.safetensors",
        "--budget",
        0.5,
        "--estimator",
        "crs",
        "--min-elements",
        0,
        "--lean",
        "8-bit",
        "--model",
        "new:bert",
    )
    assert "made of own files (train=train.csv" in refused(capsys, *lean)
    other = ("--train", "dev.jsonl", "--text", "review", "--label", "verdict")
    assert "made of other examples" in refused(capsys, *lean, *other)


def test_an_experiment_on_own_files(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = """
        name = "own"
        model = "new:bert"
        seeds = [0, 1]
        [data]
        train = "train.csv"
        dev = "dev.jsonl"
        text = "review"
        label = "verdict"
        [training]
        steps = 1
        batch_size = 4
        max_length = 24
        [methods]
        crs = "crs(budget=0.5)"
        """
    Path("own.toml").write_text(content)
    run("experiment", "own.toml", "--out", "out")
    found = json.loads(Path("out/experiment.json").read_text())
    assert found["stamp"]["inputs"]["dev"] == "dev.jsonl"
    assert found["config"]["data"]["text"] == "review"
    assert {one["result"]["task"] for one in found["runs"]} == {"train.csv"}
    load_result(Path("out/experiment.json"))
    Path("own.toml").write_text(content.replace("text =", "txt ="))
    assert "'txt' is none of train, dev, text" in refused(capsys, "experiment", "own.toml")
    Path("own.toml").write_text(content.replace("seeds", 'task = "sst2"\n        seeds'))
    assert "one of them says" in refused(capsys, "experiment", "own.toml")


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("finetune", *FILES, "--label", "verdict", "--task", "sst2"), "--task sst2, --train train.csv"),
        (("finetune", *FILES, "--label", "verdict", "--data", "."), "--data ., --train train.csv"),
        (("finetune", "--text", "review"), "--text needs --train"),
        (("finetune", "--train", "train.csv", "--text", "review", "--label", "verdict"), "needs --dev FILE"),
        (("finetune", *FILES, "--target", "answer", "--model", "new:bert"), "needs a model that writes text"),
        (("finetune", *FILES, "--label", "verdikt"), "did you mean 'verdict'"),
        (("memory", "--train", "train.csv", "--text", "review"), "needs --label COLUMN"),
        (
            ("plan", "--memory", "1GB", "--simulate", "--model", "t5-base", "--train", "train.csv"),
            "no examples are read",
        ),
        (("evaluate", "."), "holds no model"),
        (("predict", ".", "--input", "dev.jsonl", "--out", "p.xlsx"), "must end in .jsonl"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], fragment: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment in refused(capsys, *arguments)


def test_a_dry_run_counts_the_layers_that_the_receipt_counts(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["finetune", *FILES, "--label", "verdict", "--model", "new:bert", "--estimator", "crs(budget=0.3)"]
    line += ["--steps", "1", "--batch-size", "8", "--max-length", "24", "--baseline-steps", "0"]
    run(*line, "--dry-run")
    told = " ".join(capsys.readouterr().out.split())
    run(*line, "--out", "run")
    result = load_result(Path("run/result.json"))
    assert isinstance(result, TrainingResult)
    assert result.receipt is not None
    assert 0 < result.receipt.layers < result.converted
    assert (
        f"in {result.receipt.layers} of {result.converted} linear layers; inputs of the others have fewer" in told
    )
    assert "1 step " in told


def test_an_argument_is_named_once(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["finetune", *FILES, "--label", "verdict", "--model", "new:bert"]
    assert refused(capsys, *line, "--lean", "attn").startswith("error: lean='attn': 'attn' is none of")
    told = refused(capsys, *line, "--estimator", "crs(budgt=0.3)")
    assert told.startswith("error: estimator='crs(budgt=0.3)': crs has no field")
