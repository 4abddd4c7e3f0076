"""`wtacrs check`."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.cli import refused

from wtacrs.integration.cli import main
from wtacrs.integration.studies import check as check_study_module
from wtacrs.validation.properties.external_estimators import ExternalProduct
from wtacrs.validation.records.check import CheckResult, Verdict
from wtacrs.validation.records.results import load_result


@pytest.mark.usefixtures("unchecked")
def test_check_judges(captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "check",
        "crs(budget=0.3)",
        "--captures",
        str(captures),
        "--layers",
        "*.wi",
        "--bias",
        "0.5",
        "--out",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    result = load_result(tmp_path / "check-crs.json")
    assert isinstance(result, CheckResult)
    assert result.outcome == "holds"
    assert [v.status for v in result.verdicts if v.name.startswith("mean on")] == ["holds", "holds"]
    assert "holds" in capsys.readouterr().out


@pytest.mark.usefixtures("unchecked")
def test_check_of_a_broken_estimator_exits_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from wtacrs.estimators.rows.crs import CRS

    honest = CRS.plan
    monkeypatch.setattr(
        CRS, "plan", lambda self, s, u: honest(self, s, u)._replace(weights=2 * s.new_ones(len(u)))
    )
    assert main(["check", "crs(budget=0.3)", "--bias", "0.5"]) == 1


LOUD = """
import logging, sys, warnings
from tqdm import tqdm
print("imported")
logging.basicConfig(force=True)
def loud(x, dy):
    print("called")
    print("told", file=sys.stderr)
    warnings.warn("beware")
    logging.warning("logged")
    for _ in tqdm(range(1), desc="counting"): pass
    return dy.T @ x
def quiet(x, dy): return dy.T @ x
def fails(x, dy):
    print("before")
    raise ValueError("never")
"""


@pytest.fixture
def loud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder with a file that prints; temporary files go there too."""
    handlers = logging.getLogger().handlers[:]
    (tmp_path / "loud.py").write_text(LOUD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(warnings, "showwarning", shown)
    monkeypatch.setattr(check_study_module, "check_estimator", lambda external, **given: [called(external)])
    yield tmp_path
    logging.getLogger().handlers[:] = handlers


def shown(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """As Python does where no test collects warnings."""
    print(f"{category.__name__}: {message}", file=sys.stderr)


def called(external: ExternalProduct) -> Verdict:
    external.call(torch.ones(3, 2), torch.ones(3, 2))
    return Verdict(name="it was called", status="holds", detail="once")


WORDS = ("imported", "called", "told", "beware", "logged", "counting")


@pytest.mark.parametrize(
    ("options", "place"),
    [
        (["--out", "out"], "out/check-loud.log"),
        (["--log", "a/b.log", "--out", "out"], "a/b.log"),
        ([], "wtacrs-*.log"),
    ],
)
def test_what_it_prints_goes_to_a_file(
    options: list[str], place: str, loud: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "loud.py:loud", *options]) == 0
    streams = capsys.readouterr()
    assert streams.err == ""
    (file,) = loud.glob(place)
    assert streams.out.splitlines()[-1].startswith("what the code printed: ")
    assert streams.out.splitlines()[-1].endswith(file.name)
    table = streams.out.rpartition("what the code printed")[0]
    for word in WORDS[1:]:
        assert word in file.read_text()
        assert word not in table.replace("it was called", "")


def test_a_quiet_one_leaves_no_file(loud: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (loud / "quiet.py").write_text("def quiet(x, dy): return dy.T @ x")
    assert main(["check", "quiet.py:quiet", "--log", "a.log"]) == 0
    assert main(["check", "quiet.py:quiet"]) == 0
    assert not list(loud.glob("*.log"))
    assert "printed" not in capsys.readouterr().out


def test_the_file_is_named_when_it_fails_too(loud: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "loud.py:fails", "--log", "a.log"]) == 2
    streams = capsys.readouterr()
    assert streams.err == "error: loud.py:fails raises ValueError: never on every call\n"
    assert streams.out == "what the code printed: a.log\n"
    assert "before" in Path("a.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["check", "crs"], "crs needs budget"),
        (["check", "crs(budget=0.3)", "--layers", "x"], "needs --captures"),
        (["check", "crs(budget=0.3)", "--level", "2"], "level"),
        (["check", "crs(budget=0.3)", "--captures", "missing"], "no such file"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_ruled_out_in_time_exits_with_three(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "crs(budget=0.3)", "--bias", "0.0001", "--limit", "3"]) == 3
    assert "undecided" in capsys.readouterr().out


def test_an_unusable_number_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--bias", "--power", "--limit", "--level"):
        assert main(["check", "exact", option, "-1"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{option.removeprefix('--')}=-1" in line


@pytest.mark.usefixtures("unchecked")
def test_several_estimators_have_a_line_and_a_file_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = ["exact", "topk(budget=0.3)", "topk(budget=0.5)"]
    assert main(["check", *specs, "--out", str(tmp_path), "--bias", "0.5"]) == 0
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [
        "check-exact.json",
        "check-topk-2.json",
        "check-topk.json",
    ]
    shown = capsys.readouterr().out
    assert all(spec in shown for spec in specs)


def test_check_needs_something_to_check(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["exact", "--all"]):
        assert main(["check", *arguments]) == 2
        assert "--all" in capsys.readouterr().err


@pytest.mark.usefixtures("unchecked")
def test_every_registered_estimator_can_be_checked() -> None:
    from wtacrs.estimators import available
    from wtacrs.integration.studies.check import registered_estimators
    from wtacrs.validation.properties.checks import check_estimator

    found = registered_estimators()
    assert {estimator.name for estimator in found} == set(available())
    (velora,) = [estimator for estimator in found if estimator.name == "velora"]
    check_estimator(velora)
