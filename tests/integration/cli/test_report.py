"""`wtacrs report`: several folders and sub-folders on one page, and one line where there is nothing to show."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import figure_examples as examples
from support.cli import refused

from wtacrs.integration.cli import main
from wtacrs.validation.records.results import write_result


def test_folders_and_sub_folders_are_on_one_page(tmp_path: Path) -> None:
    one, two, page = tmp_path / "one", tmp_path / "two", tmp_path / "page.html"
    write_result(one / "deep" / "check.json", examples.check())
    write_result(two / "run.json", examples.training("exact"))
    (two / "cut.json").write_text('{"kind": "check", "st', encoding="utf-8")
    (two / "stopped").mkdir()
    (two / "stopped" / "state.pt").touch()
    assert main(["report", str(one), str(two), "--out", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    for name in ("deep/check.json", "run.json", "cut.json", "unfinished"):
        assert name in text
    assert not (one / "report.html").exists()


def test_the_page_is_in_the_first_folder_by_default(tmp_path: Path) -> None:
    write_result(tmp_path / "check.json", examples.check())
    assert main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("content", [None, '{"model_type": "t5"}'])
def test_no_result_is_one_line(content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
    assert str(tmp_path) in refused(capsys, "report", str(tmp_path))
    assert not (tmp_path / "report.html").exists()


def test_another_ending_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(tmp_path / "check.json", examples.check())
    assert "--out" in refused(capsys, "report", str(tmp_path), "--out", str(tmp_path / "page.pdf"))
