"""`wtacrs demo`; `tests/figures` has its report."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import refused


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["demo", "--seed", "x"], "--seed"),
        (["demo", "--out", "{text}/below"], "{text}"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))
