"""Captured files that cannot be used: one line, exit code 2, and every result that was there stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from wtacrs.integration.cli import main
from wtacrs.validation.layers.captures import LayerCapture, write_captures
from wtacrs.validation.problems import make_problem

COMMANDS = {
    "compare": ("comparison.json", ["--estimator", "crs", "--budget", "0.3"]),
    "sweep": ("sweep.json", ["--budget", "0.3"]),
    "noise": ("noise.json", ["--estimator", "crs", "--budget", "0.3", "--min-elements", "0"]),
    "test": ("layer_tests.json", ["--estimator", "crs", "--budget", "0.3", "--draws", "30"]),
}


def layers(batches: int = 3) -> dict[str, LayerCapture]:
    found = {}
    for batch in range(batches):
        for seed, name in enumerate(("first", "second")):
            generator = torch.Generator().manual_seed(10 * batch + seed)
            x, dy = make_problem("heavy_tailed", 40, 6, 5, generator=generator, dtype=torch.float32)
            found[f"{name}#{batch}"] = LayerCapture(x, dy, torch.ones(40, dtype=torch.bool))
    return found


def spoilt(path: Path, how: str) -> Path:
    whole = layers()
    last = whole["second#2"]
    if how == "NaN in x":
        last = LayerCapture(last.x.index_fill(0, torch.tensor([3]), float("nan")), last.dy, last.mask)
    elif how == "infinite dy":
        last = LayerCapture(last.x, last.dy.index_fill(0, torch.tensor([3]), float("inf")), last.mask)
    elif how == "rows that do not fit":
        last = LayerCapture(last.x, last.dy[:-1], last.mask)
    elif how == "a mask that does not fit":
        last = LayerCapture(last.x, last.dy, last.mask[:-1])
    write_captures(path, whole | {"second#2": last}, {"model": "m"})
    if how == "truncated":
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    return path


EXPECTED = {
    "NaN in x": ("second", "NaN"),
    "infinite dy": ("second", "NaN or infinite"),
    "rows that do not fit": ("second", "rows"),
    "a mask that does not fit": ("second", "mask"),
    "truncated": ("not a whole safetensors file",),
}


@pytest.fixture(scope="module")
def results_of(tmp_path_factory: pytest.TempPathFactory, unchecked_module: None) -> Callable[[str], Path]:
    """The folder that a command has written, made once."""

    @cache
    def folder(command: str) -> Path:
        made = tmp_path_factory.mktemp(command)
        good = write_captures(made / "good.safetensors", layers(), {"model": "m"})
        _, options = COMMANDS[command]
        assert main([command, str(good), *options, "--out", str(made / "out")]) == 0
        return made / "out"

    return folder


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("how", EXPECTED)
@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_one_line_and_earlier_results_stay(
    command: str,
    how: str,
    results_of: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result, options = COMMANDS[command]
    out = Path(shutil.copytree(results_of(command), tmp_path / "out"))
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert out / result in before
    capsys.readouterr()
    bad = spoilt(tmp_path / "bad.safetensors", how)
    assert main([command, str(bad), *options, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    for words in EXPECTED[how]:
        assert words in error
    assert {path: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_layer_is_named(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_captures(tmp_path / "good.safetensors", layers(), {"model": "m"})
    _, options = COMMANDS[command]
    out = tmp_path / "out"
    assert main([command, str(good), *options, "--layers", "third", "--out", str(out)]) == 2
    assert "layers='third' fits none of the 2 captured layers" in capsys.readouterr().err


@pytest.mark.usefixtures("unchecked")
def test_what_was_done_before_the_bad_layer_is_kept_and_not_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, out = spoilt(tmp_path / "bad.safetensors", "NaN in x"), tmp_path / "out"
    _, options = COMMANDS["compare"]
    assert main(["compare", str(bad), *options, "--out", str(out)]) == 2
    assert "(5 of 6 pieces are done and kept" in capsys.readouterr().err
    pieces = {path: path.stat().st_mtime_ns for path in (out / ".parts").iterdir()}
    assert len(pieces) == 5
    assert main(["compare", str(bad), *options, "--layers", "first", "--out", str(out)]) == 0
    assert (out / "comparison.json").exists()
    assert not (out / ".parts").exists()
