"""The command line as a whole: help, version, and what every command has in common."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from support.cli import refused

from wtacrs.integration.cli import main
from wtacrs.integration.cli.app import _RESUMABLE, app

COMMANDS = tuple(typer.main.get_command(app).commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.count("\n") > 5
    assert "Usage" in text


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert len(COMMANDS) >= 15
    assert all(command in text for command in COMMANDS)


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"wtacrs {version('wtacrs')}\n"


def test_without_arguments_it_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "finetune" in capsys.readouterr().out


@pytest.mark.parametrize(("command", "kept"), [("sweep", True), ("theory", False)])
def test_ctrl_c_says_what_has_become_of_the_work(
    command: str,
    kept: bool,
    captures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"wtacrs.integration.studies.{command}.{command}_study", stop)
    files = [str(captures)] if command == "sweep" else []
    assert main([command, *files, "--out", str(tmp_path)]) == 130
    goes_on = "; finished parts are kept: run the same command again to continue" if kept else ""
    assert capsys.readouterr().err == f"interrupted{goes_on}\n"


def test_what_runs_piece_by_piece_goes_on_after_ctrl_c() -> None:
    commands = typer.main.get_command(app).commands
    in_pieces = {name for name, command in commands.items() if "jobs" in {p.name for p in command.params}}
    assert in_pieces == set(_RESUMABLE) - {"study", "experiment"}  # these go on by states of training


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["bogus"], "No such command 'bogus'"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))
