"""A tracked step as data and in sentences."""

from __future__ import annotations

from support.result_examples import NASTY, tracked_memory

from wtacrs.validation.records.track_memory import beside, tracked_memory_sentences


def test_questions_are_answered_from_the_file_alone() -> None:
    result = tracked_memory()
    assert result.total == 5_000_000
    assert (result.freed_by("1"), result.freed_by(type="Linear"), result.freed_by()) == (0, 2_000_000, 5_000_000)
    assert [entry.bytes for entry in result.owners("1")] == [3_000_000]
    assert [entry.name for entry in result.by()] == [NASTY, "1"]


def test_sentences_say_what_is_shared_and_what_is_beside_it() -> None:
    told = list(tracked_memory_sentences(tracked_memory()))
    assert told[0].startswith("5.00 MB in 2 storages")
    assert "2.00 by one module each, 3.00 by several together" in told[0]
    assert told[1] == "operations that would free most by letting go, MB: AddmmBackward0 2.00"
    assert "gradients 1.00, optimizer states 2.00, batch 0.040" in told[3]
    assert "of 2 backward passes" in told[4]
    assert "optimizer states" not in dict(beside(tracked_memory().model_copy(update={"optimizer": None})))
