"""The pages of examples run as they stand, and each ends in what it promises: a table, and a figure."""

from __future__ import annotations

import re
from pathlib import Path

import pandas
import pytest
from support.page_blocks import pages_estimators, python_blocks, run_page  # noqa: F401
from support.paths import ROOT

PAGES = sorted((ROOT / "docs" / "examples").glob("*.md"))
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def test_there_is_a_page_for_every_use() -> None:
    assert {page.stem for page in PAGES} == {"compare", "test", "sweep", "finetune"}


@pytest.mark.usefixtures("pages_estimators", "unchecked")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    left = run_page(page)
    table = left["table"]
    assert isinstance(table, pandas.DataFrame)
    assert len(table) > 1
    figures = re.findall(r"`([\w/]+\.png)`", page.read_text(encoding="utf-8"))
    assert figures
    for figure in figures:
        assert (tmp_path / figure).read_bytes().startswith(PNG_SIGNATURE)


def test_an_error_names_page_and_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\none = 1\n```\n\nmore\n\n```python\n\none / 0\n```\n")
    assert [line for line, _ in python_blocks(page)] == [4, 10]
    with pytest.raises(ZeroDivisionError) as error:
        run_page(page)
    assert (Path(error.traceback[-1].path), error.traceback[-1].lineno + 1) == (page, 11)
