"""`wtacrs sweep`."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import in_memory, refused

from wtacrs.integration.cli import main
from wtacrs.integration.studies.sweep import capture_names
from wtacrs.validation.layers.captures import load_captures, write_captures
from wtacrs.validation.records.results import load_result
from wtacrs.validation.records.sweep import SweepResult


def test_sweep_writes_its_result_and_figure(captures: Path, tmp_path: Path) -> None:
    assert main(["sweep", str(captures), "--layers", "*.wi", "--scores", "both", "--out", str(tmp_path)]) == 0
    result = load_result(tmp_path / "sweep.json")
    assert isinstance(result, SweepResult)
    assert [(s.captures, s.layer, s.scores, s.budget) for s in result.sweeps] == [
        ("m", layer, scores, budget)
        for layer in ("block.0.wi#0", "block.1.wi#0")
        for scores in ("oracle", "row-norms")
        for budget in (0.1, 0.3, 0.5)
    ]
    assert (tmp_path / "winner_sweep.png").exists()
    assert (tmp_path / "winner_regret.png").exists()


def test_sweep_of_several_files_and_budgets_answers_which(
    captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = load_captures(captures)
    later = tmp_path / "later.safetensors"
    write_captures(later, {e: in_memory(stored[e]) for e in stored}, {"model": "/home/of/m", "step": 200})
    arguments = ["sweep", str(captures), str(later), "--budget", "0.2", "--budget", "7", "--out", str(tmp_path)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "Which |C|, oracle? That of the" in shown
    result = load_result(tmp_path / "sweep.json")
    assert isinstance(result, SweepResult)
    assert list(dict.fromkeys(s.captures for s in result.sweeps)) == ["m", "of/m, step 200"]
    assert [s.budget for s in result.sweeps] == [0.2, 7] * 6
    assert set(result.stamp.inputs) == {"budget", "m", "of/m, step 200"}
    assert main([*arguments, "--no-products"]) == 0
    assert "Which |C|, oracle? Not known" in capsys.readouterr().out
    assert not (tmp_path / "winner_regret.png").exists()
    bounds = load_result(tmp_path / "sweep.json")
    assert isinstance(bounds, SweepResult)
    assert {(s.products, s.best) for s in bounds.sweeps} == {(False, None)}


def test_a_pattern_of_a_sweep_must_fit_some_file(
    captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Architectures name their layers differently."""
    stored = load_captures(captures)
    other = write_captures(
        tmp_path / "o.safetensors", {"h.0.fc1#0": in_memory(stored["block.0.wi#0"])}, {"model": "o"}
    )
    out = tmp_path / "out"
    common = ["sweep", str(captures), str(other), "--budget", "0.2", "--out", str(out)]

    def swept(*patterns: str) -> list[tuple[str, str]]:
        assert main([*common, *(part for pattern in patterns for part in ("--layers", pattern))]) == 0
        result = load_result(out / "sweep.json")
        assert isinstance(result, SweepResult)
        return [(s.captures, s.layer) for s in result.sweeps]

    assert swept("*fc1") == [("o", "h.0.fc1#0")]
    assert swept("*fc1", "*.wo") == [("m", "block.0.wo#0"), ("o", "h.0.fc1#0")]
    capsys.readouterr()
    message = refused(capsys, *common, "--layers", "*fc1", "--layers", "*.nope")
    assert "layers='*.nope' fits none of the 5 captured layers: c.safetensors: " in message
    assert "; o.safetensors: h.0.fc1" in message


def test_files_of_one_model_are_told_apart_by_name(captures: Path, tmp_path: Path) -> None:
    stored = load_captures(captures)
    copies = [tmp_path / "a" / "c.safetensors", tmp_path / "b" / "c.safetensors", tmp_path / "a" / "d.safetensors"]
    for path in copies:
        write_captures(path, {"x#0": in_memory(stored["block.0.wi#0"])}, {"model": "m"})
    names = capture_names([load_captures(path) for path in copies])
    assert len(set(names)) == 3
    assert names[2] == "m (d.safetensors)"


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["sweep", "{captures}", "--scores", "stale"], "--after STEPS --age A"),
        (["sweep", "{captures}", "--budget", "nan"], "budget=nan must be"),
        (["sweep", "missing.safetensors"], "no such file"),
        (["sweep", "{captures}", "missing.safetensors"], "no such file"),
        (["sweep", "{captures}", "{captures}"], "is named 2 times"),
        (["sweep"], "CAPTURES"),
        (["sweep", "{captures}", "--budget", "0.1", "--budget", "2.5"], "budget=2.5 must be"),
        (["sweep", "{captures}", "--layers", "dead"], "zero in every chosen layer"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))
