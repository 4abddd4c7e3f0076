"""--quiet, --json, --dry-run, full disks, closed pipes and missing packages: the same in every command."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from support.cli import refused

from wtacrs.estimators import available
from wtacrs.integration.cli import main
from wtacrs.integration.cli.completion import complete_estimator, complete_experiment, complete_task
from wtacrs.integration.studies.experiment_files import experiment_file, experiment_names
from wtacrs.validation.files import check_folder, writing

ON_CAPTURES = {"compare": "comparison.json", "sweep": "sweep.json", "test": "layer_tests.json"}
LONG = ("finetune", "capture", "demo", "theory", "study masks", "experiment t5-docstrings")
SLOW = ("memory", "bench", "plan --memory 1GB", "study budgets", "study norms", "study scores", "study front")


def options_of(command: str) -> list[str]:
    few = {"compare": ["--budget", "2"], "sweep": ["--budget", "2"], "test": ["--budget", "4", "--limit", "1"]}
    return few[command]


@pytest.mark.parametrize("command", ON_CAPTURES)
def test_json_is_the_result_file_and_nothing_else(
    command: str, captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([command, str(captures), *options_of(command), "--out", str(tmp_path), "--json"])
    assert capsys.readouterr().out == (tmp_path / ON_CAPTURES[command]).read_text(encoding="utf-8")


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_prints_nothing_but_warnings(
    place: str, captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sweep", str(captures), "--budget", "2", "--out", str(tmp_path)]
    assert main(["-q", *command] if place == "before" else [*command, "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(line.startswith("skipped") for line in shown.err.splitlines())
    assert main(command) == 0  # it does not stay quiet
    assert "wrote" in capsys.readouterr().out


def test_the_zoo_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == list(available())


def test_several_results_are_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "exact", "crs(budget=2)", "--only", "shapes", "--json"]) in (0, 2)
    shown = capsys.readouterr().out
    if shown:
        assert [one["kind"] for one in json.loads(shown)] == ["check", "check"]


# --- dry runs ---


@pytest.mark.parametrize("command", [*LONG, *(pytest.param(command, marks=pytest.mark.slow) for command in SLOW)])
def test_a_dry_run_tells_and_writes_nothing(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert shown.out.endswith("dry run: inputs are usable, nothing was written\n")
    assert shown.out.count("\n") >= 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["compare", "sweep", "test"])
def test_a_dry_run_counts_pieces(
    command: str, captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new"
    assert main([command, str(captures), *options_of(command), "--out", str(out), "--dry-run"]) == 0
    assert "pieces: 0 are done and kept" in capsys.readouterr().out
    assert not out.exists()


def test_a_dry_run_refuses_what_the_real_run_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "bogus" in refused(capsys, "finetune", "--estimator", "bogus", "--dry-run", "--out", tmp_path / "a")
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(capsys, "finetune", "--dry-run", "--out", tmp_path / "file")


# --- full disks and folders that cannot be written to ---


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("command", ["sweep", "theory", "finetune", "compare", "demo"])
def test_a_folder_that_cannot_be_written_to_is_one_line(
    command: str,
    number: int,
    captures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("wtacrs.validation.files.tempfile.TemporaryFile", fail)
    files = [captures] if command in ("sweep", "compare") else []
    line = refused(capsys, command, *files, "--out", tmp_path)
    assert line == f"error: out={tmp_path} cannot be written to: {os.strerror(number)}\n"


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(
    captures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", fail)
    line = refused(capsys, "sweep", captures, "--budget", "2", "--out", tmp_path)
    assert "No space left on device" in line
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_errors_of_torch_and_safetensors_are_errors_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as found, writing(tmp_path / "state.pt"):
        # its own words: it writes by renaming, which would take the place of /dev/full
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert found.value.filename == str(tmp_path / "state.pt")
    with (
        pytest.raises(OSError, match=r"state\.pt") as found,
        writing(tmp_path / "state.pt"),
        open("/dev/full", "wb") as f,
    ):
        torch.save({"x": torch.ones(1_000_000)}, f)
    assert found.value.errno in (errno.ENOSPC, errno.EIO)


def test_a_defect_stays_a_defect(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shape"), writing(tmp_path / "a"):
        raise RuntimeError("shape mismatch")
    check_folder("out", tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- the process as a whole ---


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wtacrs.integration.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def test_a_reader_that_has_gone_is_no_error() -> None:
    shell = f"{sys.executable} -m wtacrs.integration.cli zoo | head -1"
    found = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("Estimators")
    assert found.stderr == ""


def test_a_full_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        found = subprocess.run(
            [sys.executable, "-m", "wtacrs.integration.cli", "zoo"], stdout=full, stderr=-1, text=True, check=False
        )
    assert found.returncode == 2
    assert found.stderr.startswith("error: ")
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [("KeyboardInterrupt", 130, "interrupted"), ("ImportError('torch is broken')", 2, "torch is broken")],
)
def test_imports_that_fail_or_are_interrupted_are_one_line(
    raised: str, code: int, told: str, tmp_path: Path
) -> None:
    (tmp_path / "typer.py").write_text(f"raise {raised}\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    found = run("zoo", env=os.environ | {"PYTHONPATH": path})
    assert (found.returncode, found.stderr.count("\n")) == (code, 1)
    assert told in found.stderr


def test_a_missing_extra_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers")

    monkeypatch.setattr("wtacrs.integration.studies.theory.theory_study", missing)
    line = refused(capsys, "theory", "--out", tmp_path)
    assert line == "error: transformers is not installed: pip install 'wtacrs[train]'\n"


def test_help_tells_exit_codes_and_imports_no_torch() -> None:
    code = "import sys; from wtacrs.integration.cli import main; main(['--help']); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.endswith("False\n")
    assert "130" in found.stdout


# --- names ---


def test_the_shell_completes_names() -> None:
    assert complete_estimator("") == list(available())
    assert complete_estimator("wta") == ["wta_crs"]
    assert complete_task("ss") == ["sst2"]
    assert complete_experiment("t5-s") == ["t5-sst2"]


def test_built_in_experiments_have_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "--list"]) == 0
    assert capsys.readouterr().out.split() == experiment_names()
    assert experiment_file("minilm-sst2").is_file()
    assert "t5-docstrings" in refused(capsys, "experiment", "bogus")
    assert "needs --model: a pre-trained MiniLM" in refused(capsys, "experiment", "minilm-sst2", "--dry-run")
