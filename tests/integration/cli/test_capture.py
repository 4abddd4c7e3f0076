"""`wtacrs capture`."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import refused


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["capture", "--age", "3"], "needs --after"),
        (["capture", "--after", "2", "--age", "3"], "from 1 to after=2"),
        (["capture", "--model", "new:gpt"], "new:bert"),
        (["capture", "--out", "."], "is a folder"),
        (["capture", "--task", "ssst2"], "sst2"),
        (["capture", "--task", "sst2", "--data", "missing"], "missing"),
        (["capture", "--model", "./missing"], "./missing"),
        (["capture", "--batches", "0"], "--batches"),
        (["capture", "--layers", "nothing.*", "--batch-size", "2"], "fits none of the 23 linear layers"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))


@pytest.mark.parametrize("more", [[], ["--after", "2"]])
def test_more_batches_than_the_task_fills_are_refused_before_a_model_is_opened(
    more: list[str], places: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("a model is opened")

    monkeypatch.setattr("wtacrs.integration.models.opening.open_model", opened)
    told = refused(capsys, "capture", "--batches", "100000", *more)
    assert "batches=100000 of batch_size=32 need 3200000 examples; docstrings has 10000 for training" in told
