"""Results in any files and folders: what is read, and what is not, with the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wtacrs.estimators import InputError
from wtacrs.figures.kinds import view_of
from wtacrs.figures.sections.blocks import Named
from wtacrs.validation.records.base import Result
from wtacrs.validation.records.results import load_result


@dataclass
class Found:
    """What lies in the given files and folders.

    Attributes:
        results: under their names relative to the folder, in the order of the paths.
        unreadable: files that look like results, or are no JSON, with the reason why they are not on the page.
        others: JSON files that are not results, as configurations of models.
        copies: files that hold the same result as an earlier one, with the name of that one.
        unfinished: folders of runs without a result.
        pictures: PNG files.
    """

    results: list[Named[Result]] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    copies: list[tuple[str, str]] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    pictures: list[tuple[str, Path]] = field(default_factory=list)


def find_results(paths: Sequence[Path]) -> Found:
    """Read all results in files and folders, sub-folders included; hidden folders are left out.

    Raises:
        InputError: if a path is missing, or no result is found.
    """
    found = Found()
    seen: set[Path] = set()
    for given in paths:
        if not given.exists():
            raise InputError(f"folder {given}: not a folder; give one that holds result files (*.json)")
        for path in _files(given):
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            _sort_in(found, path, _name(path, given, len(paths) > 1))
    if not found.results:
        told = "; ".join(f"{name}: {why}" for name, why in found.unreadable)
        where = ", ".join(map(str, paths))
        raise InputError(f"folder {where}: holds no result file (*.json){'; ' + told if told else ''}")
    return found


def _files(given: Path) -> Iterator[Path]:
    if given.is_file():
        yield given
        return
    for path in sorted(given.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(given).parts):
            yield path


def _name(path: Path, given: Path, several: bool) -> str:
    if given.is_file():
        return str(given)
    name = path.relative_to(given)
    return str(Path(given.resolve().name) / name if several else name)


def _sort_in(found: Found, path: Path, name: str) -> None:
    if path.suffix == ".png":
        found.pictures.append((name, path))
    elif path.suffix == ".json":
        _read(found, path, name)
    elif path.name in ("state.pt", "metrics.jsonl") and not (path.parent / "result.json").exists():
        folder = str(Path(name).parent)
        if folder not in found.unfinished:
            found.unfinished.append(folder)


def _read(found: Found, path: Path, name: str) -> None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        found.unreadable.append((name, f"is not JSON: {error}"))
        return
    if not (isinstance(content, dict) and {"kind", "stamp"} <= set(content)):
        found.others.append(name)
        return
    try:
        result = load_result(path)
        view_of(result.kind)
    except InputError as error:
        found.unreadable.append((name, str(error)))
        return
    first = next((named.file for named in found.results if named.result == result), None)
    if first is None:
        found.results.append(Named(name, result))
    else:
        found.copies.append((name, first))
