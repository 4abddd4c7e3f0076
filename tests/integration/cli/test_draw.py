"""`wtacrs draw`: figures beside their results, one figure where one is asked for, a report; one line for bad input."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support import figure_examples as examples
from support.result_examples import every_kind

from wtacrs.integration.cli import main
from wtacrs.validation.records.results import write_result

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    for kind, result in every_kind().items():
        write_result(folder / f"{kind.replace(' ', '_')}.json", result)
    write_result(folder / "other.json", examples.training("exact"))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "results"))


def draw(*arguments: object) -> int:
    return main(["draw", *map(str, arguments)])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.png")}


def test_all_figures_go_beside_the_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw(folder / "comparison.json", folder / "sweep.json") == 0
    comparison = {"comparison.png", "oracle_ratio.png"}
    assert names(folder) == {*comparison, "winner_sweep.png", "winner_regret.png"}
    assert capsys.readouterr().out.count("wrote ") == 4
    assert draw(folder / "theory.json", "--out", folder / "deep" / "er") == 0
    assert names(folder / "deep" / "er") == {
        f"theory_{claim.name}.png"
        for claim in every_kind()["theory"].claims  # type: ignore[attr-defined]
    }


def test_one_figure_with_its_options(folder: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "o.png", tmp_path / "p.png"
    cases = (
        (["comparison.json"], ["--against", "macs"], ["--figure", "comparison", "--against", "macs"]),
        (["sweep.json"], [], ["--figure", "winner_sweep", "--budget", "0.3", "--relative-to", "crs"]),
        (["transfer.json"], [], ["--files", "a.safetensors", "--files", "b.safetensors"]),
        (["sweep.json"], [], ["--layers", examples.LAYERS[0], "--layers", examples.LAYERS[1]]),
        (["training.json", "other.json"], [], ["--against", "step"]),
    )
    for files, one, same in cases:
        paths = [folder / name for name in files]
        assert draw(*paths, out, *one) == draw(*paths, other, *same) == 0
        assert out.read_bytes() == other.read_bytes()
        assert out.read_bytes().startswith(PNG)
    assert draw(folder / "sweep.json", other, "--relative-to", "gradient") == 0
    assert draw(folder / "sweep.json", out) == 0
    assert out.read_bytes() != other.read_bytes()
    assert draw(folder / "training.json", other, "--against", "seconds") == 0
    assert not names(folder)


def test_a_kind_without_a_figure_is_a_table_with_its_reason(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw(folder / "check.json") == 0
    told = capsys.readouterr().out
    assert "verdicts are words" in told
    assert "expected failure" in told
    assert draw(folder / "memory.json", "--table") == 0
    told = capsys.readouterr().out
    assert "LayerNorm + Linear" in told
    assert f"wrote {folder / 'memory.png'}" in told


def test_patterns_of_layers_and_which_figure_it_is(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "o.png", tmp_path / "p.png"
    assert draw(folder / "sweep.json", out, "--layers", "*.block.0.*.q") == 0
    assert "drew winner_sweep; --figure NAME draws another: winner_regret" in capsys.readouterr().out
    assert draw(folder / "sweep.json", other, "--figure", "winner_sweep", "--layers", examples.LAYERS[0]) == 0
    assert "draws another" not in capsys.readouterr().out
    assert out.read_bytes() == other.read_bytes()


BAD = {
    "absent.json": "absent.json: No such file",
    "OUT.png": "name the result file before it",
    "check.json OUT.png": "check.json: kind 'check' has no figure: verdicts are words",
    "comparison.json sweep.json OUT.png": "results of one kind make one figure",
    "comparison.json comparison.json OUT.png": "drawn one by one",
    "comparison.json comparison.json": "draw them apart, or say OUT.png",
    "comparison.json OUT.png --figure nothing": "figure='nothing' is no figure of",
    "comparison.json --figure nothing": "kind 'comparison' has comparison, oracle_ratio",
    "comparison.json --against macs": "--against changes one figure: say --out FILE",
    "comparison.json OUT.png --against x": "against='x' must be one of",
    "comparison.json OUT.png --relative-to crs": "--relative-to: no option of kind 'comparison'",
    "comparison.json --out OUT.jpg": "OUT.jpg: a figure must end in .png, .pdf or .svg",
    "sweep.json OUT.png --layers *.nowhere": "layers='*.nowhere' fits none of the",
    "comparison.json OUT.png --figure oracle_ratio --against macs": "no option of figure 'oracle_ratio'",
    "sweep.json OUT.png --budget many": "--budget 'many' must be a fraction",
    "sweep.json OUT.png --budget 0.7": "budget=0.7 is not in the sweep",
    "transfer.json OUT.png --files a.safetensors": "two that differ are shown",
    "comparison.json OUT.png --out DIR": "both say where the figure goes",
    "comparison.json DIR/OUT.gif": "OUT.gif: No such file",
    "DIR": "DIR is a folder: wtacrs report",
    "": "Missing argument",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line(
    line: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "DIR").mkdir()
    arguments = [
        str((folder if part.endswith(".json") else tmp_path) / part)
        if part[0].isupper() or ".json" in part
        else part
        for part in line.split()
    ]
    assert draw(*arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert BAD[line] in told
    assert not names(folder)
    assert not names(tmp_path)
