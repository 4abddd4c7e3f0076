"""`wtacrs zoo`."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import refused

from wtacrs.integration.cli import main


def test_zoo_lists_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo"]) == 0
    assert "winner-take-all" in " ".join(capsys.readouterr().out.split())
    assert main(["zoo", "crs"]) == 0
    assert "Var Ĝ = " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["zoo", "wta"], "did you mean wta_crs"),
        (["zoo", "--loud"], "--loud"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))
