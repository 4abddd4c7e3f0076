"""Text that is broken into lines where it is too wide, and numbers of an axis that are left out where they collide."""

from __future__ import annotations

import re
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator

_GAP = 2.0
"""Least distance of two numbers of an axis, in points."""


def wrap(text: Text, room: float) -> None:
    """Break the text's lines so that none is longer than `room` pixels: at spaces, within a word after punctuation."""
    if not text.get_text() or _length(text) <= room:
        return

    lines = [line for whole in text.get_text().split("\n") for line in broken(whole, _Fits(text, room))]
    text.set_text("\n".join(lines))


class _Fits:
    """Whether a line in the look of the text is short enough."""

    def __init__(self, text: Text, room: float) -> None:
        self._text, self._room = text, room

    def __call__(self, line: str) -> bool:
        self._text.set_text(line)
        return _length(self._text) <= self._room


def _length(text: Text) -> float:
    box = text.get_window_extent()
    return box.width if text.get_rotation() % 180 == 0 else box.height


def broken(line: str, fits: Callable[[str], bool]) -> list[str]:
    """The line as lines that fit; what cannot be broken stays whole.

    >>> broken("one two three(four=5)", lambda line: len(line) <= 9)
    ['one two', 'three(', 'four=5)']
    """
    lines, current = [], ""
    for word in line.split(" "):
        spaced = f"{current} {word}" if current else word
        if fits(spaced):
            current = spaced
            continue
        if current:
            lines.append(current)
        *full, current = [word] if fits(word) else _pieces(word, fits)
        lines += full
    return [*lines, current]


def _pieces(word: str, fits: Callable[[str], bool]) -> list[str]:
    lines, current = [], ""
    for piece in re.findall(r"[^.,/(=_+]*[.,/(=_+]+|[^.,/(=_+]+", word):
        if current and not fits(current + piece):
            lines.append(current)
            current = ""
        current += piece
    return [*lines, current]


def thin_out(axes: Axes) -> None:
    """Take numbers of the x axis away where they would touch: those between powers first, then from left to right."""
    axis = axes.xaxis
    shown = [
        (level, place, label)
        for level, ticks in ((0, axis.get_major_ticks()), (1, axis.get_minor_ticks()))
        for place, tick in enumerate(ticks)
        if (label := tick.label1 if tick.label1.get_visible() else tick.label2).get_visible() and label.get_text()
    ]
    low, high = sorted(axes.transAxes.transform([(0, 0), (1, 0)])[:, 0])
    gap = _GAP / 72 * axes.figure.get_figure(root=True).dpi
    kept: list[tuple[float, float]] = []
    lost: set[tuple[int, int]] = set()
    for level, place, label in shown:
        box = label.get_window_extent()
        if not low - 1 <= (box.x0 + box.x1) / 2 <= high + 1:
            continue
        if any(box.x0 < right + gap and left < box.x1 + gap for left, right in kept):
            lost.add((level, place))
        else:
            kept.append((box.x0, box.x1))
    if lost:
        for level, minor in enumerate((False, True)):
            _relabel(axes, minor, {place for at, place in lost if at == level})


def _relabel(axes: Axes, minor: bool, lost: set[int]) -> None:
    axis = axes.xaxis
    places = axis.get_minorticklocs() if minor else axis.get_majorticklocs()
    ticks = axis.get_minor_ticks() if minor else axis.get_major_ticks()
    labels = [
        "" if place in lost else tick.label1.get_text() or tick.label2.get_text()
        for place, tick in enumerate(ticks)
    ]
    (axis.set_minor_locator if minor else axis.set_major_locator)(FixedLocator(list(places)))
    (axis.set_minor_formatter if minor else axis.set_major_formatter)(FixedFormatter(labels))
