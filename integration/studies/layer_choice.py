"""Which captured layers a study looks at, by patterns of their names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from wtacrs.estimators import InputError
from wtacrs.validation.layers.captures import Captures


def chosen_entries(captures: Captures, patterns: Sequence[str] | None) -> list[str]:
    """Entries of a captured file whose name, with or without `#batch`, fits one of the patterns (`*`, `?`, `[]`).

    Raises:
        InputError: if a pattern fits nothing.
    """
    return chosen_of_files([captures], patterns)[0]


def chosen_of_files(files: Sequence[Captures], patterns: Sequence[str] | None) -> list[list[str]]:
    """The chosen entries of every file, as `chosen_entries`: architectures differ, so a file may have none that fits.

    Raises:
        InputError: if a pattern fits nothing in any file, naming them.
    """
    if not patterns:
        return [list(captures) for captures in files]
    for pattern in patterns:
        if not any(_fits(entry, pattern) for captures in files for entry in captures):
            count = sum(len(captures.layers) for captures in files)
            there = "; ".join(map(_some_layers, files))
            raise InputError(f"layers={pattern!r} fits none of the {count} captured layers: {there}")
    return [[entry for entry in captures if any(_fits(entry, p) for p in patterns)] for captures in files]


def chosen_names(known: Sequence[str], patterns: Sequence[str] | None) -> list[str]:
    """The names of layers that fit one of the patterns; all without patterns.

    Raises:
        InputError: if a pattern fits nothing.
    """
    for pattern in patterns or ():
        if not any(fnmatchcase(layer, pattern) for layer in known):
            raise InputError(f"layers={pattern!r} fits none of the {len(known)} captured layers: {known[0]} …")
    return [layer for layer in known if not patterns or any(fnmatchcase(layer, p) for p in patterns)]


def _fits(entry: str, pattern: str) -> bool:
    return fnmatchcase(entry, pattern) or fnmatchcase(entry.rpartition("#")[0], pattern)


def _some_layers(captures: Captures) -> str:
    return f"{captures.path.name}: {', '.join(captures.layers[:4])}{' …' if len(captures.layers) > 4 else ''}"
