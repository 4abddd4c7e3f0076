"""Runs the python blocks of a page in order, in one namespace, as a reader does who types them in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wtacrs.estimators.core import registry

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """Every block with the line of the page that it begins at."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)) + 1, found.group(1)) for found in _BLOCK.finditer(text)]


@pytest.fixture
def pages_estimators() -> Iterator[None]:
    """What a page registers is forgotten after it; what it made the package import stays."""
    yield
    for name in [name for name, cls in registry._REGISTRY.items() if cls.__module__.startswith("page_")]:
        del registry._REGISTRY[name]


def run_page(page: Path) -> dict[str, Any]:
    """The names that the blocks leave; an error names the page and the line."""
    namespace: dict[str, Any] = {"__name__": f"page_{page.stem}"}
    for line, block in python_blocks(page):
        code = compile("\n" * (line - 1) + block, str(page), "exec", dont_inherit=True)
        exec(code, namespace)
    return namespace
