"""`wtacrs capture`."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import refused
from support.glue_files import SINGLE, write_task


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
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))


def small_task(folder: Path) -> list[str]:
    """Options for a task of eight sentences."""
    rows = SINGLE + "good\t1\nbad\t0\n" * 4
    return ["--task", "sst2", "--data", str(write_task(folder / "glue" / "SST-2", rows, rows))]


def test_a_pattern_that_fits_no_layer_is_one_line(
    places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*small_task(places["tmp"]), "--layers", "nothing.*", "--batch-size", "2"]
    assert "layers='nothing.*' fits none of the 23 linear layers" in refused(capsys, "capture", *options)


@pytest.mark.parametrize("more", [[], ["--after", "2"]])
def test_more_batches_than_the_task_fills_are_refused_before_a_model_is_opened(
    more: list[str], places: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("a model is opened")

    monkeypatch.setattr("wtacrs.integration.models.opening.open_model", opened)
    told = refused(capsys, "capture", *small_task(places["tmp"]), "--batches", "100000", *more)
    assert "batches=100000 of batch_size=32 need 3200000 examples; sst2 has 8 for training" in told
