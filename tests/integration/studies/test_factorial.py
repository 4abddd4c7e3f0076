"""Crossed factors: a file in, every combination trained, effects out; bad files are one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import refused
from support.runs_study import Colours

from wtacrs.integration.cli import main
from wtacrs.integration.studies import experiment_runs
from wtacrs.integration.studies.experiment_config import read_config
from wtacrs.integration.studies.factorial import FactorialConfig, run_factorial
from wtacrs.validation.records.factorial import FactorialResult
from wtacrs.validation.records.results import load_result

TEXT = """
name = "crossed"
seeds = [3, 5]
margin = 0.2
variance = "pooled"
average_last = 2
model = "new:bert"

[training]
steps = 2
batch_size = 8
max_length = 16
eval_every = 1

[factors.dW]
"exact" = {}
"half of the rows" = { estimator = "crs(budget=0.5)" }

[factors.optimizer]
"AdamW" = {}
"SGD" = { optimizer = "sgd", lr = 0.1 }
"""


def read(file: Path) -> FactorialConfig:
    return read_config(file, {"factors": FactorialConfig})


def test_every_combination_is_trained_and_its_effects_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "crossed.toml"
    file.write_text(TEXT)
    monkeypatch.setattr(experiment_runs, "subject_of", lambda *given: Colours())
    assert main(["experiment", str(file), "--out", str(tmp_path / "out")]) == 0
    result = load_result(tmp_path / "out" / "factorial.json")
    assert isinstance(result, FactorialResult)
    assert result.factors == {"dW": ["exact", "half of the rows"], "optimizer": ["AdamW", "SGD"]}
    assert len(result.runs) == 8
    for run in result.runs:
        inputs = run.result.stamp.inputs
        assert run.result.estimator == ("exact" if run.levels["dW"] == "exact" else "crs(budget=0.5)")
        assert inputs.get("optimizer", "adamw") == ("sgd" if run.levels["optimizer"] == "SGD" else "adamw")
    assert [(one.kind, one.factor, one.at) for one in result.contrasts] == [
        ("effect", None, None),
        ("effect", "optimizer", "AdamW"),
        ("effect", "optimizer", "SGD"),
        ("interaction", "optimizer", "SGD"),
    ]
    exact = next(cell for cell in result.cells if cell.levels == {"dW": "exact", "optimizer": "AdamW"})
    found = [run.result.last(2) for run in result.runs if run.levels == {"dW": "exact", "optimizer": "AdamW"}]
    assert exact.mean == pytest.approx(sum(found) / 2)
    assert (tmp_path / "out" / "factorial.png").exists()
    assert (tmp_path / "out" / "design.json").exists()
    assert "half of the rows" in capsys.readouterr().out

    def trained(*arguments, **options):
        raise AssertionError("a finished run is trained again")

    monkeypatch.setattr(Colours, "open", trained)
    again = run_factorial(read(file), tmp_path / "out")
    assert again.runs == result.runs


BAD = {
    "one level": (TEXT.replace('"half of the rows" = { estimator = "crs(budget=0.5)" }\n', ""), "at least two"),
    "a field that two factors set": (
        TEXT.replace("lr = 0.1", 'estimator = "crs(budget=0.1)"'),
        "both set estimator",
    ),
    "a seed": (TEXT.replace("lr = 0.1", "seed = 1"), "set by the experiment"),
    "another key": (TEXT + "\n[methods]\n", "methods"),
    "levels of one folder": (TEXT.replace('"SGD"', '"AdamW "').replace('"AdamW"', '"AdamW-"'), "share a folder"),
    "an unknown field": (TEXT.replace("lr = 0.1", "rate = 0.1"), "rate"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_one_line(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, words = BAD[what]
    file = tmp_path / "x.toml"
    file.write_text(text)
    assert words in refused(capsys, "experiment", file, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
