"""Which captured layers a study looks at, by patterns of their names."""

from __future__ import annotations

from collections.abc import Sequence

from wtacrs.validation.layers.captures import Captures
from wtacrs.validation.patterns import check_patterns, first_few, fits, fitting

_WHAT = "captured layers"


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
    layers = [layer for captures in files for layer in captures.layers]
    entries = [entry for captures in files for entry in captures]
    there = "; ".join(f"{captures.path.name}: {first_few(captures.layers)}" for captures in files)
    check_patterns(patterns, layers, what=_WHAT, synonyms=entries, there=there)
    return [
        [entry for entry in captures if fits(entry, patterns) or fits(entry.rpartition("#")[0], patterns)]
        for captures in files
    ]


def chosen_names(known: Sequence[str], patterns: Sequence[str] | None) -> list[str]:
    """The names of layers that fit one of the patterns; all without patterns.

    Raises:
        InputError: if a pattern fits nothing.
    """
    return fitting(known, patterns, what=_WHAT) if patterns else list(known)
