"""`wtacrs test`."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import refused


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["test", "missing.safetensors"], "no such file"),
        (["test", "{captures}", "--draws", "3"], "--draws"),
        (["test", "{captures}", "--level", "0"], "level=0.0"),
        (["test", "{captures}", "--bias", "0"], "bias=0.0"),
        (["test", "{captures}", "--power", "1"], "power=1.0"),
        (["test", "{captures}", "--limit", "nan"], "limit=nan"),
        (["test", "{captures}", "--quantity", "bias"], "must be variance or mse"),
        (["test", "{captures}", "--against", "wta_csr"], "did you mean wta_crs"),
        (["test", "{captures}", "--layers", "dead"], "zero in every chosen layer"),
        (["test", "{captures}", "--out", "{text}/below"], "{text}"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))
