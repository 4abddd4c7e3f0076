"""The page of the audit is made from its numbers, holds every kind, and its numbers can be measured again."""

from __future__ import annotations

from pathlib import Path

import pytest
from published_defects import audit as command
from published_defects import measured
from published_defects.audit import PAGE, RESULT
from published_defects.page import page, surprising
from published_defects.pieces import MEAN_LAWS, POOLED, all_pieces
from published_defects.results import read
from support.paths import ROOT

from wtacrs.estimators import InputError
from wtacrs.validation.runner import Task

pytestmark = pytest.mark.usefixtures("unchecked")

AUDIT = read(ROOT / RESULT)
FAST = ("scaled_by_nine_tenths", "weights_count_the_padding", "bias_scaled_too", "seeds_itself")


def test_the_page_shows_the_numbers() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(AUDIT)


def test_every_piece_and_law_is_on_it() -> None:
    pieces = all_pieces()
    assert [row.name for row in AUDIT.defects] == [name for name, piece in pieces.items() if piece.law]
    assert [row.name for row in AUDIT.sound] == [name for name, piece in pieces.items() if not piece.law]
    assert {row.law for row in AUDIT.alarms} == {*MEAN_LAWS, POOLED}
    assert {row.law for row in AUDIT.power} == set(MEAN_LAWS)


def test_every_defect_is_found_and_nothing_sound_is() -> None:
    assert all(row.found == row.seeds == measured.SEEDS for row in AUDIT.defects)
    assert all(
        all_pieces()[row.name].law in row.broken or row.name == "weights_that_sum_to_n" for row in AUDIT.defects
    )
    assert not any(row.alarms for row in AUDIT.sound)
    assert all(row.seeds == measured.SEEDS for row in AUDIT.sound)


def test_alarms_are_as_rare_and_power_is_as_large_as_stated() -> None:
    assert all(row.seeds == measured.MANY_SEEDS for row in [*AUDIT.alarms, *AUDIT.power])
    assert all(row.alarms <= surprising(row) for row in AUDIT.alarms)
    assert all(row.found >= 0.99 * row.seeds for row in AUDIT.power)


def test_known_biases_are_measured() -> None:
    known = [row for row in AUDIT.defects if all_pieces()[row.name].bias is not None]
    assert len(known) >= 8
    for row in known:
        stated = all_pieces()[row.name].bias or 0.0
        assert row.bias == pytest.approx(stated, abs=max(3 * (row.error or 0.0), 0.03 * stated)), row.name


@pytest.mark.parametrize("name", FAST)
def test_measured_again_a_defect_gives_the_same(name: str) -> None:
    recorded = next(row for row in AUDIT.defects if row.name == name)
    piece = all_pieces()[name]
    found = [measured.found_by_its_law(piece, seed) for seed in range(3)]
    assert all(v.status == "broken" for v in found)
    if recorded.bias is not None and recorded.error is not None:
        assert all(abs((v.bias or 0.0) - recorded.bias) <= 8 * recorded.error for v in found)


@pytest.mark.slow
def test_the_command_writes_both_files_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"bias_scaled_too", "ExactLinear"}

    def few(seeds: int, many: int) -> list[Task]:
        tasks = [task for task in measured.tasks(seeds, many) if task.arguments[0] in kept]
        assert len(tasks) == 2
        return tasks

    monkeypatch.setattr(command, "tasks", few)
    arguments = ["--out", str(tmp_path / "out"), "--root", str(tmp_path), "--seeds", "2", "--many", "2"]
    assert command.main(arguments) == 0
    first = (tmp_path / RESULT).read_bytes()
    found = read(tmp_path / RESULT)
    assert [row.found for row in found.defects] == [2]
    assert [(row.alarms, row.undecided) for row in found.sound] == [(0, 0)]
    assert command.main(arguments) == 0
    assert (tmp_path / RESULT).read_bytes() == first
    (tmp_path / PAGE).unlink()
    assert command.main(["--page", "--root", str(tmp_path)]) == 0
    assert (tmp_path / PAGE).read_text(encoding="utf-8") == page(found)


def test_a_file_that_is_no_audit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"audit\.json"):
        read(path)
    assert command.main(["--out", str(path)]) == 2
