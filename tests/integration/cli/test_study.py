"""`wtacrs study`."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import printed, refused

from wtacrs.integration.cli import main
from wtacrs.validation.records.masks import MasksResult
from wtacrs.validation.records.results import load_result
from wtacrs.validation.records.transfer import TransferResult


@pytest.mark.parametrize("command", ["norms", "scores", "budgets", "transfer", "masks", "winners"])
def test_every_study_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", command, "--help"]) == 0
    assert f"study {command} [OPTIONS]" in " ".join(capsys.readouterr().out.split())


def test_study_transfer_of_two_files(captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(captures.read_bytes())
    arguments = ["study", "transfer", captures, other, "--estimator", "crs", "--estimator", "uniform"]
    assert main([str(a) for a in [*arguments, "--budget", "0.2", "--out", tmp_path / "out"]]) == 0
    result = load_result(tmp_path / "out" / "transfer.json")
    assert isinstance(result, TransferResult)
    assert {(pair.tau, pair.regret) for pair in result.pairs} == {(1.0, 1.0)}
    shown = printed(capsys)
    assert "transfer.png" in shown
    assert "skipped" in shown


def test_study_masks_of_one_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["study", "masks", "--architecture", "gpt2", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    result = load_result(tmp_path / "out" / "masks.json")
    assert isinstance(result, MasksResult)
    assert len(result.rows) == len(result.ran) == 10
    shown = capsys.readouterr().out
    assert "1 architectures, 10 cases" in " ".join(shown.split())
    assert "masks.png" in shown


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["study", "best"], "No such command 'best'"),
        (["study", "transfer", "{captures}"], "at least two files"),
        (["study", "transfer", "{captures}", "missing.safetensors"], "no such file"),
        (["study", "transfer", "{captures}", "{captures}"], "another file is called 'c'"),
        (["study", "transfer", "{captures}", "{text}", "--scores", "best"], "--scores 'best' must be"),
        (["study", "norms", "--estimator", "exact"], "a spec such as"),
        (["study", "norms", "--layer", "x", "--train-limit", "9"], "layer='x' is no linear layer"),
        (["study", "norms", "--lr", "0"], "lr=0.0"),
        (["study", "norms", "--model", "new:gpt"], "new:bert"),
        (["study", "budgets", "--budget", "most"], "'most' must be a fraction"),
        (["study", "budgets", "--estimator", "crs(budget=3)"], "leave the budget out"),
        (["study", "budgets", "--seeds", "0"], "--seeds"),
        (["study", "budgets", "--out", "{text}"], "is a file"),
        (["study", "budgets", "--after", "3"], "--after 3 is for --without-training alone"),
        (["study", "budgets", "--without-training", "--held-out", "9"], "there are no runs to evaluate"),
        (["study", "budgets", "--held-out", "9"], "task 'docstrings' has dev examples of its own"),
        (["study", "budgets", "--margin", "0"], "margin=0.0 must be a positive number"),
        (["study", "budgets", "--average-last", "9", "--steps", "10"], "average_last=9: a run has 1 evaluation"),
        (["study", "budgets", "--without-training", "--model", "new:t5-bse"], "did you mean new:t5-base?"),
        (["study", "masks", "--architecture", "gpt9"], "architecture='gpt9' fits none of the"),
        (["study", "masks", "--estimator", "priority(budget=2.0)"], "budget=2.0 must be"),
        (["study", "masks", "--out", "{text}"], "is a file"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))
