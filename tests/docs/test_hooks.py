"""Hooks of the site: files outside of the docs become pages, pipes in tables are plain, equations are MathML."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest
from support.pages import DOCS, PAGES, text_of
from support.paths import ROOT

pytest.importorskip("latex2mathml", reason="the docs extra is not installed")
pytest.importorskip("mkdocs", reason="the docs extra is not installed")


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_linked_test_is_a_heading_of_its_page(hooks: ModuleType) -> None:
    for page in PAGES[1:]:
        place = str(page.parent.relative_to(DOCS)).removeprefix(".")
        for image, target in hooks._targets(text_of(page), place):
            assert (ROOT / target).is_file()
            if not image and target.endswith(".py"):
                assert f"## `{hooks._parts(target)[-1][0]}`" in hooks._source(target)
    found = hooks._LINK.sub(lambda link: hooks._link(link, ""), (DOCS / "theory.md").read_text(encoding="utf-8"))
    anchors = re.findall(r"\(source/(tests/[\w/.]+\.py)\.md#(test_\w+)\)", found)
    assert len(anchors) == 20
    assert all(f"## `{name}`" in hooks._source(target) for target, name in anchors)


def test_a_module_is_whole_in_its_parts(hooks: ModuleType) -> None:
    target = "tests/validation/theory/test_theorems.py"
    squeezed = re.sub(r"\s+", "", "".join(code for _, code in hooks._parts(target)))
    assert squeezed == re.sub(r"\s+", "", (ROOT / target).read_text(encoding="utf-8"))


def test_a_link_to_nothing_is_refused(hooks: ModuleType) -> None:
    with pytest.raises(FileNotFoundError, match=r"tests/nothing\.py is linked to and is no file"):
        list(hooks._targets("[`a`](../tests/nothing.py)", ""))
    assert list(hooks._targets("```\n[a](../tests/nothing.py)\n```\n", "")) == []


def test_pipes_in_code_of_tables_are_plain(hooks: ModuleType) -> None:
    text = "| a | b |\n| --- | --- |\n| `x \\| y` | z \\| w |\n\n`x \\| y`\n"
    assert hooks._IN_TABLE.sub(hooks._plain_pipes, text) == text.replace("| `x \\| y`", "| `x | y`")


def test_equations_are_written_outside_of_code(hooks: ModuleType) -> None:
    found = hooks._outside(hooks._CODE, "a $x^2$ and `$x$`", hooks._written)
    assert "<math" in found
    assert "`$x$`" in found
