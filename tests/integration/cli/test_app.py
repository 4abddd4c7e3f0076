"""The command line as a whole: help, version, and what every command has in common."""

from __future__ import annotations

import re
import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from support.cli import refused
from support.glue_files import write_task

from wtacrs.estimators import InputError, WtacrsWarning
from wtacrs.integration.cli import commands, main
from wtacrs.integration.cli.app import _RESUMABLE, app
from wtacrs.integration.models.lora import add_lora

assert commands  # importing it enters them
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
    arguments = [command, *files, "--out", str(tmp_path)]
    assert main(arguments) == 130
    goes_on = f"; finished parts are kept: wtacrs {' '.join(arguments)} goes on" if kept else ""
    assert capsys.readouterr().err == f"interrupted{goes_on}\n"


def test_what_runs_piece_by_piece_goes_on_after_ctrl_c() -> None:
    commands = typer.main.get_command(app).commands
    in_pieces = {name for name, command in commands.items() if "jobs" in {p.name for p in command.params}}
    assert in_pieces == set(_RESUMABLE) - {"study", "experiment"}  # these go on by states of training


def seeded() -> list[str]:
    """The commands that take a seed, by their options."""
    commands = typer.main.get_command(app).commands
    groups = {name: getattr(command, "commands", {}) for name, command in commands.items()}
    paths = [[name] for name in commands] + [[name, inner] for name, group in groups.items() for inner in group]
    found = []
    for path in paths:
        command = commands[path[0]] if len(path) == 1 else groups[path[0]][path[1]]
        if any("--seed" in parameter.opts for parameter in command.params):
            found.append(" ".join(path))
    return found


def test_the_commands_that_draw_take_a_seed() -> None:
    assert {"finetune", "theory", "check", "demo", "pretrain", "capture", "memory", "layers"} <= set(seeded())
    assert len(seeded()) >= 13


@pytest.mark.parametrize("seed", ["-1", "4294967296", "99999999999999999999"])
@pytest.mark.parametrize("command", seeded())
def test_a_seed_out_of_range_is_refused_where_it_enters(
    command: str, seed: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    needed = (
        [str(places["captures"])] if any(w in command for w in ("compare", "noise", "test", "transfer")) else []
    )
    needed = ["crs(budget=2)"] if command == "check" else needed
    found = refused(capsys, *command.split(), *needed, "--seed", seed)
    assert found == f"error: --seed={seed} must be an integer from 0 to 4294967295\n"


# --- warnings ---


class _Other(UserWarning):
    """Of another package."""


def test_own_warnings_are_one_line_each_and_others_stay_warnings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def study(*_: object, **__: object) -> None:
        for _ in range(2):
            warnings.warn("layer [0] stays\n  exact: " + "long " * 60, WtacrsWarning, stacklevel=2)
        with pytest.warns(_Other):
            warnings.warn("not ours", _Other, stacklevel=2)
        raise InputError("stop here")

    monkeypatch.setattr("wtacrs.integration.studies.theory.theory_study", study)
    before = warnings.showwarning
    assert main(["theory"]) == 2
    assert warnings.showwarning is before
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"warning layer [0] stays exact: {('long ' * 60).strip()}\nerror: stop here\n"


@pytest.mark.parametrize("command", ["finetune", "memory", "layers"])
def test_commands_that_convert_say_where_nothing_is_saved(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoRA-FA without a head to train has frozen every layer but B of its adapters, which stay exact."""
    sentences = "".join(f"a {word} film about {word}s\t{word % 2}\n" for word in range(40))
    folder = write_task(tmp_path / "glue" / "SST-2", "sentence\tlabel\n" + sentences, "sentence\tlabel\nso\t1\n")
    arguments = [command, "--task", "sst2", "--data", str(folder), "--batch-size", "2", "--max-length", "16"]
    if command == "layers":  # it knows LoRA alone
        monkeypatch.setattr("wtacrs.integration.studies.layers.add_lora", partial(add_lora, frozen_a=True))
        arguments += ["--model", "new:t5-gated"]
    else:
        arguments += ["--out", str(tmp_path / "out"), "--lora-fa"]
        arguments += ["--steps", "1", "--dev-limit", "1"] if command == "finetune" else []
    assert main([*arguments, "--lora-rank", "2"]) == 0
    shown = capsys.readouterr()
    warned = [line for line in shown.err.splitlines() if line.startswith("warning ")]
    told = re.compile(r"\d+ layers converted, none of them trains: nothing is saved$")
    assert sum(bool(told.search(line)) for line in warned) == 1
    assert "WtacrsWarning" not in shown.out + shown.err


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


def test_the_hint_of_a_wrong_option_is_a_command_however_it_was_started(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command in ("finetune", "study masks"):
        assert f"See `wtacrs {command} --help`." in refused(capsys, *command.split(), "--nope")
