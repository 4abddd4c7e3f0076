"""What README and docs show runs, and what they link to is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from support.page_blocks import pages_estimators, run_page  # noqa: F401
from support.paths import ROOT

from wtacrs.estimators import available

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
OTHERS = [page for page in PAGES if page.parent.name != "examples"]  # those have tests of their own
WITH_PYTHON = [page for page in OTHERS if "```python\n" in page.read_text(encoding="utf-8")]
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#([\w-]+))?\)")
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(page: Path) -> list[str]:
    """Every command line of wtacrs in console blocks, and in single code spans."""
    text = page.read_text(encoding="utf-8")
    lines = [line.partition("  #")[0] for block in _CONSOLE.findall(text) for line in block.splitlines()]
    return [line for line in lines if line.startswith("wtacrs ")]


def test_the_readme_is_short_and_begins_with_what_matters() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 270
    first = "\n".join(lines[:60])
    assert all(word in first for word in ("Do not use it", "make demo", "make test", "```python"))
    block = first.partition("```python\n")[2].partition("```")[0]
    assert len(block.splitlines()) <= 20


@pytest.mark.usefixtures("pages_estimators", "unchecked")
@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_have_the_options_that_are_shown(page: Path) -> None:
    """Parsed by the command line itself, up to where a command would begin."""
    import wtacrs.integration.cli.commands  # noqa: F401
    from wtacrs.integration.cli.app import app

    root = typer.main.get_command(app)
    for line in commands(page):
        group, words = root, shlex.split(line)[1:]
        context = group.make_context("wtacrs", list(words), resilient_parsing=True)
        while hasattr(group, "resolve_command"):
            _, command, rest = group.resolve_command(context, words)
            assert command is not None, line
            group, words = command, rest
            if hasattr(group, "resolve_command"):
                context = group.make_context(line, list(words), parent=context, resilient_parsing=True)
        known = {option for parameter in group.params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= known | {"--help", "-h"}, f"{line}: {sorted(given - known)}"


def test_files_that_are_linked_to_exist() -> None:
    count = 0
    for page in PAGES:
        for target, _ in _LINK.findall(page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{name(page)}: {target}"
            count += 1
    assert count > 40


def test_tests_that_are_linked_to_exist() -> None:
    """The page of the theory names a test for every claim."""
    from wtacrs.validation.theory.claims import CLAIMS

    text = (DOCS / "theory.md").read_text(encoding="utf-8")
    links = re.findall(r"^\| `([\w-]+)` \|.*\[`(test_\w+)`\]\(\.\./([\w/.]+)\)", text, flags=re.MULTILINE)
    assert [claim for claim, _, _ in links] == list(CLAIMS)
    for _, test, file in links:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), test


def test_every_estimator_is_in_the_table_of_the_zoo() -> None:
    zoo = (DOCS / "zoo.md").read_text(encoding="utf-8")
    assert all(f"| `{each}" in zoo for each in available())


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f": {page.relative_to(DOCS)}\n" in navigation for page in PAGES[1:])
