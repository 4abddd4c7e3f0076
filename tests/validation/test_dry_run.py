"""Dry runs end where the work begins and write nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from wtacrs.estimators import InputError
from wtacrs.validation.dry_run import WouldBegin, begin_work, dry_run, is_dry_run
from wtacrs.validation.files import check_folder
from wtacrs.validation.records.results import write_text


def test_work_begins_except_in_a_dry_run() -> None:
    begin_work("nothing is raised")
    with dry_run(), pytest.raises(WouldBegin) as found:
        begin_work("a", "b")
    assert found.value.lines == ("a", "b")
    assert not is_dry_run()


def test_a_dry_run_writes_and_makes_nothing(tmp_path: Path) -> None:
    with dry_run():
        check_folder("out", tmp_path / "new" / "er")
        write_text(tmp_path / "new" / "file.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_refuses_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with dry_run(), pytest.raises(InputError, match="is a file; a folder is needed"):
        check_folder("out", tmp_path / "file" / "deeper")
