"""What README and docs show runs, and what they link to is there."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from support.page_blocks import pages_estimators, run_page  # noqa: F401
from support.pages import DOCS, PAGES, blocks, console_lines, name, prose, spans, text_of
from support.paths import ROOT

from wtacrs.estimators import available

OTHERS = [page for page in PAGES if page.parent.name != "examples"]  # those have tests of their own
WITH_PYTHON = [page for page in OTHERS if blocks(page, "python")]
_LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)")
_UNESCAPED_PIPE = re.compile(r"(?<!\\)\|")


def test_the_readme_is_short_and_begins_with_what_matters() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130
    first = "\n".join(lines[:60])
    assert all(word in first for word in ("Do not use it", "make demo", "make test", "```python"))
    block = first.partition("```python\n")[2].partition("```")[0]
    assert len(block.splitlines()) <= 20


@pytest.mark.usefixtures("pages_estimators", "unchecked")
@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page)


def command_of(words: Sequence[str]) -> tuple[Any, list[str]]:
    """The command that a line of words calls, found by the command line itself, and the words behind it."""
    import wtacrs.integration.cli.commands  # noqa: F401
    from wtacrs.integration.cli.app import app

    group, rest = typer.main.get_command(app), list(words)
    context = group.make_context("wtacrs", list(rest), resilient_parsing=True)
    while hasattr(group, "resolve_command"):
        if not rest or rest[0].startswith("-") or rest[0].isupper():  # a name that stands for any
            return group, rest
        _, command, rest = group.resolve_command(context, rest)
        assert command is not None, words
        group = command
        if hasattr(group, "resolve_command"):
            context = group.make_context(" ".join(words), list(rest), parent=context, resilient_parsing=True)
    return group, rest


def options_of(command: Any) -> set[str]:
    own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return own | {"--help", "-h"}


def options_in(words: Sequence[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_have_the_options_that_are_shown(page: Path) -> None:
    """In blocks and in code spans; brackets of what may be left out are not part of a word."""
    lines = [span.replace("[", "").replace("]", "") for span in spans(prose(page)) if span.startswith("wtacrs ")]
    for line in (*console_lines(page), *lines):
        command, words = command_of(shlex.split(line)[1:])
        unknown = options_in(words) - options_of(command)
        assert not unknown, f"{line}: {sorted(unknown)}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_in_code_spans_belong_to_a_command_of_the_page(page: Path) -> None:
    """Any command may be meant where the page names none that has one."""
    lines = [*console_lines(page), *(span for span in spans(prose(page)) if span.startswith("wtacrs "))]
    named = [command_of(shlex.split(line.replace("[", "").replace("]", ""))[1:])[0] for line in lines]
    known = set().union(*(options_of(command) for command in named or all_commands()))
    for span in spans(prose(page)):
        if span.startswith("--"):
            unknown = options_in(shlex.split(span)) - known
            assert not unknown, f"`{span}`: {sorted(unknown)}"


def all_commands() -> Iterator[Any]:
    import wtacrs.integration.cli.commands  # noqa: F401
    from wtacrs.integration.cli.app import app

    groups = [typer.main.get_command(app)]
    while groups:
        group = groups.pop()
        groups += getattr(group, "commands", {}).values()
        yield group


def test_targets_of_make_exist() -> None:
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    asked = set()
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        lines = [*spans(prose(page)), *("\n".join(blocks(page, "console") + blocks(page, "")).splitlines())]
        asked |= {found[1] for line in lines if (found := re.match(r"make ([a-z-]+)", line))}
    assert len(asked) > 10
    assert asked <= rules


def test_extras_that_are_installed_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for page in PAGES:
        for extras in re.findall(r"(?:wtacrs|'\.)\[([\w,]+)\]", text_of(page)):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), name(page)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name)
def test_rows_of_tables_have_as_many_cells_as_the_head(page: Path) -> None:
    """A pipe inside a cell is escaped, in code too: GitHub ends a cell at any other."""
    head = 0
    for number, line in enumerate(prose(page).splitlines(), start=1):
        if not line.startswith("|"):
            head = 0
            continue
        assert line.endswith("|"), f"{name(page)}: {line}"
        cells = len(_UNESCAPED_PIPE.findall(line)) - 1
        head = head or cells
        assert cells == head, f"{name(page)}, line {number} of the prose: {cells} cells under {head}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_equations_have_no_plain_pipes_in_tables(page: Path) -> None:
    for line in prose(page).splitlines():
        if line.startswith("|"):
            assert not [found for found in re.findall(r"\$([^$]+)\$", line) if "|" in found], line


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub and the site make them."""
    found = re.findall(r"^#{1,6} (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in found}


def test_files_and_headings_that_are_linked_to_exist() -> None:
    files = headings = 0
    for page in PAGES:
        for target, anchor in _LINK.findall(prose(page)):
            other = (page.parent / target).resolve() if target else page
            assert other.exists(), f"{name(page)}: {target}"
            files += 1
            if anchor:
                assert anchor in anchors(other), f"{name(page)}: {target}#{anchor}"
                headings += 1
    assert files > 40
    assert headings


def test_the_citation_is_that_of_the_citation_file() -> None:
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    paper = told["references"][0]
    for page in (ROOT / "README.md", DOCS / "citation.md"):
        text = "\n".join(blocks(page, "bibtex"))
        for wanted in (told["title"], told["version"], paper["title"], str(paper["year"])):
            assert wanted in text, f"{name(page)}: {wanted}"
        assert paper["url"].rpartition("/")[2] in text


def test_tests_that_are_linked_to_exist() -> None:
    """The page of the theory names a test for every claim."""
    from wtacrs.validation.theory.claims import CLAIMS

    text = (DOCS / "theory.md").read_text(encoding="utf-8")
    links = re.findall(r"^\| `([\w-]+)` \|.*\[`(test_\w+)`\]\(\.\./([\w/.]+)\)", text, flags=re.MULTILINE)
    assert [claim for claim, _, _ in links] == list(CLAIMS)
    for _, test, file in links:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), test
    assert len({test for _, test, _ in links}) == len(links), "each claim has a test of its own"


def test_every_estimator_is_in_the_table_of_the_zoo() -> None:
    zoo = (DOCS / "zoo.md").read_text(encoding="utf-8")
    assert all(f"| `{each}" in zoo for each in available())


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f": {page.relative_to(DOCS)}\n" in navigation for page in PAGES[1:])
