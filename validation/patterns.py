"""Patterns of names, matched here and nowhere else: `*` for any text, `?` for one character, `[ab]` for some."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from wtacrs.estimators.core.errors import InputError
from wtacrs.validation.arguments import shown

_SHOWN = 4


def checked_patterns(patterns: object, argument: str = "layers") -> list[str]:
    """The patterns themselves; a text, whose letters would be taken for patterns, is refused.

    Raises:
        InputError: on anything but one or more texts in a list or the like.

    >>> checked_patterns(("encoder.*", "classifier"))
    ['encoder.*', 'classifier']
    """
    found: list[Any] = []
    if isinstance(patterns, Iterable) and not isinstance(patterns, (str, bytes, Mapping)):
        found = list(patterns)
    if not found or not all(isinstance(pattern, str) for pattern in found):
        example = [patterns] if isinstance(patterns, str) else ["encoder.*", "classifier"]
        raise InputError(f"{argument}={shown(patterns)} must be a list of at least one pattern, as in {example!r}")
    return found


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether a whole name fits one of the patterns, upper and lower case apart.

    >>> fits("encoder.block.0.wi", ["decoder.*", "*.w?"]), fits("encoder.block.0.wi", ["wi"])
    (True, False)
    """
    return first_fitting(name, patterns) is not None


def first_fitting(name: str, patterns: Iterable[str]) -> str | None:
    """The first pattern that a name fits, or None."""
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def check_patterns(
    patterns: Iterable[str],
    names: Sequence[str],
    *,
    what: str,
    argument: str = "layers",
    synonyms: Sequence[str] = (),
    there: str | None = None,
) -> None:
    """Refuse a pattern that no name fits.

    Args:
        patterns: to be checked.
        names: that there are.
        what: the names' kind, in the plural, for the message.
        argument: that the patterns were given as.
        synonyms: further names that a pattern may fit, which the message does not count.
        there: what the message says there is; default the first names.

    Raises:
        InputError: naming the pattern and some of the names.
    """
    for pattern in patterns:
        if not any(fits(name, [pattern]) for name in (*names, *synonyms)):
            some = first_few(names) if there is None else there
            raise InputError(f"{argument}={pattern!r} fits none of the {len(names)} {what}: {some}")


def first_few(names: Sequence[str]) -> str:
    """Some of the names, for a message.

    >>> first_few(["a", "b", "c", "d", "e"]), first_few([])
    ('a, b, c, d …', 'there is none')
    """
    return (", ".join(names[:_SHOWN]) or "there is none") + (" …" if len(names) > _SHOWN else "")


def fitting(names: Sequence[str], patterns: Sequence[str], *, what: str, argument: str = "layers") -> list[str]:
    """The names that fit one of the patterns, in their order.

    Raises:
        InputError: if there is no list of patterns, or one fits none (see `check_patterns`).
    """
    chosen = checked_patterns(patterns, argument)
    check_patterns(chosen, names, what=what, argument=argument)
    return [name for name in names if fits(name, chosen)]


def pattern_of(name: str) -> str:
    """The name with `*` for every part that is a number.

    >>> pattern_of("encoder.block.0.layer.1.DenseReluDense.wi_0")
    'encoder.block.*.layer.*.DenseReluDense.wi_0'
    """
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", name)
