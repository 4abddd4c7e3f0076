"""README and the pages of the docs, and what stands in them."""

from __future__ import annotations

import re
from pathlib import Path

from support.paths import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_CALL = re.compile(r"^(?:\.venv/bin/)?wtacrs |^(?:torchrun|accelerate launch) .*?-m wtacrs\.integration\.cli ")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [text for found, text in _FENCED.findall(text_of(page)) if found == language]


def prose(page: Path) -> str:
    """What stands outside of fenced blocks."""
    return _FENCED.sub("", text_of(page))


def spans(text: str) -> list[str]:
    """What stands in single backticks."""
    return _SPAN.findall(text)


def console_lines(page: Path) -> list[str]:
    """Every command line of wtacrs in console and sh blocks, also under a launcher of processes, with `wtacrs` first."""
    shown = [block for kind in ("console", "sh") for block in blocks(page, kind)]
    lines = [line.partition("  #")[0] for block in shown for line in block.splitlines()]
    return [_CALL.sub("wtacrs ", line) for line in lines if _CALL.match(line)]
