"""`wtacrs memory`."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import refused


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["memory", "--precision", "fp8"], "--precision 'fp8' must be fp32 or bf16"),
        (["memory", "--estimator", "wta_csr(budget=0.3)"], "did you mean wta_crs"),
        (["memory", "--lean", "attention,attention-again"], "asks for two kinds of attention"),
        (["memory", "--out", "{text}"], "is a file"),
        (["memory", "--batch-size", "0"], "--batch-size"),
        (["memory", "--batch-size", "100000"], "batch_size=100000 need 100000 examples"),
        (["memory", "--model", "new:gpt"], "new:bert"),
        (["memory", "--device", "abacus"], "--device 'abacus' cannot be used"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))
