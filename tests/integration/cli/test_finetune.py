"""`wtacrs finetune`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cli import refused

from wtacrs.integration.cli import main
from wtacrs.validation.records.receipt import receipt_lines
from wtacrs.validation.records.results import load_result
from wtacrs.validation.records.training import TrainingResult


def test_finetune_trains_refuses_to_overwrite_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "SST-2"
    task.mkdir()
    rows = [f"{'good' if i % 2 else 'bad'} film number {i}\t{i % 2}" for i in range(24)]
    for name in ("train", "dev"):
        (task / f"{name}.tsv").write_text("\n".join(["sentence1\tlabel", *rows]) + "\n")
    out = tmp_path / "run"
    arguments = ["finetune", "--task", "sst2", "--data", tmp_path, "--out", out, "--steps", 3, "--batch-size", 8]
    assert main([str(a) for a in arguments]) == 0
    result = load_result(out / "result.json")
    assert isinstance(result, TrainingResult)
    assert result.estimator == 'wta_crs(budget=0.3, winners="paper")'
    assert (result.train_size, result.dev_size, result.majority) == (24, 24, 0.5)
    assert result.history[-1].step == 3
    assert len((out / "metrics.jsonl").read_text().splitlines()) == len(result.history)
    assert json.loads((out / "best" / "config.json").read_text())["architectures"] == [
        "T5ForConditionalGeneration"
    ]
    assert result.receipt is not None
    assert " ".join("".join(f"{line} " for line in receipt_lines(result.receipt)).split()) in " ".join(
        capsys.readouterr().out.split()
    )
    assert "holds a run already" in refused(capsys, *arguments)
    assert load_result(out / "result.json") == result
    assert "batch_size" in refused(capsys, *arguments[:-1], 4, "--resume")
    assert main([str(a) for a in [*arguments, "--overwrite"]]) == 0


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["finetune", "--out", "{text}"], "is a file"),
        (["finetune", "--resume", "--overwrite"], "contradict"),
        (["finetune", "--model", ".", "--tokenizer", "."], "--tokenizer is for the small new T5"),
        (["finetune", "--estimator", "crs(budget=7.5)"], "budget=7.5 must be"),
        (["finetune", "--lean", "atention"], "did you mean attention"),
        (["finetune", "--lr", "-1"], "lr=-1.0"),
        (["finetune", "--precision", "fp8"], "precision='fp8'"),
        (["finetune", "--schedule", "steep"], "schedule='steep'"),
        (["finetune", "--clip", "-1"], "clip=-1.0"),
        (["finetune", "--weight-decay", "1"], "weight_decay=1.0"),
        (["finetune", "--task", "imdb"], "imdb"),
        (["finetune", "--model", "./missing"], "./missing"),
        (["finetune", "--model", "t5-small", "--task", "docstrings"], "t5-small"),
        (["finetune", "--task", "sst2"], "--data DIR"),
        (["finetune", "--tokenizer", "./missing"], "./missing"),
        (["finetune", "--resume", "--out", "{tmp}/nothing"], "nothing"),
        (["finetune", "--optimizer", "lion"], "optimizer='lion'"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))


def test_the_folder_alone_is_enough_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    start = [
        "finetune",
        "--model",
        "new:bert",
        "--train-limit",
        20,
        "--dev-limit",
        10,
        "--max-length",
        16,
        "--steps",
        4,
    ]
    start += ["--batch-size", 4, "--lr", "1e-3", "--out", out]
    assert main([str(a) for a in start]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "of exact training's for its backward pass" in shown
    assert "times as long as exact ones" in shown
    first = load_result(out / "result.json")
    resume = ["finetune", "--resume", "--out", out]
    assert main([str(a) for a in [*resume, "--lr", "1e-3"]]) == 0
    capsys.readouterr()
    assert load_result(out / "result.json") == first
    assert "lr=0.1" in refused(capsys, *resume, "--lr", "0.1")
    assert "optimizer='sgd'" in refused(capsys, *resume, "--optimizer", "sgd")
    assert "the run in" in refused(capsys, *resume, "--model", "new:gpt2")
    assert "train" in refused(capsys, *resume, "--train-limit", 10)
    (out / "settings.json").unlink()
    assert "there is no settings.json" in refused(capsys, *resume)
