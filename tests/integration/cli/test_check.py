"""`wtacrs check`."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import refused

from wtacrs.integration.cli import main
from wtacrs.validation.records.check import CheckResult
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
