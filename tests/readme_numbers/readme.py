"""Tables of numbers in README and docs: between `<!-- numbers: NAME -->` and `<!-- end -->`, from a result file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from readme_numbers.records import NumberTable
from wtacrs.estimators import InputError
from wtacrs.validation.records.results import write_text

_PLACE = re.compile(r"<!-- numbers: ([\w-]+) -->\n(.*?)<!-- end -->", re.DOTALL)


def markdown(table: NumberTable) -> str:
    """The table in Markdown, its first column to the left, the others to the right."""
    lines = [table.head, ["---", *["---:"] * (len(table.head) - 1)], *table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def places(text: str) -> dict[str, str]:
    """What stands in every place, by name."""
    return dict(_PLACE.findall(text))


def filled(text: str, tables: Sequence[NumberTable]) -> str:
    """The text with every place filled.

    Raises:
        InputError: if a place has no table, or a table no place.
    """
    by_name = {table.name: table for table in tables}
    found = places(text)
    for name in [*(set(found) - set(by_name)), *(set(by_name) - set(found))]:
        raise InputError(
            f"numbers: {name!r} is {'a place without a table' if name in found else 'without a place'}"
        )
    return _PLACE.sub(lambda m: f"<!-- numbers: {m[1]} -->\n{markdown(by_name[m[1]])}<!-- end -->", text)


def pages(root: Path = Path()) -> list[Path]:
    """README and the pages of the docs."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def fill(paths: Sequence[Path], tables: Sequence[NumberTable]) -> None:
    """Fill the places of files, each whole or not at all.

    Raises:
        InputError: as `filled`, of all files together, before any is written; and if one cannot be read.
    """
    try:
        texts = {path: path.read_text(encoding="utf-8") for path in paths}
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}") from None
    filled("".join(texts.values()), tables)
    for path, text in texts.items():
        mine = places(text)
        if mine:
            write_text(path, filled(text, [table for table in tables if table.name in mine]))
