"""What can be wrong with the layout of any picture: text that is cut off, covered, on other text or hard to read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from wtacrs.figures.contrast import LEGIBLE, contrast

_SLACK = 1.5
"""Pixels that boxes may overlap or stand out: a box is a little larger than its letters."""


def drawn_texts(fig: Figure) -> list[Text]:
    """Every text that a figure shows once it is drawn."""
    found = [*fig.texts, *(text for legend in fig.legends for text in legend.get_texts())]
    for axes in fig.axes:
        if axes.axison:
            found += [
                axes.xaxis.label,
                axes.yaxis.label,
                axes.xaxis.get_offset_text(),
                axes.yaxis.get_offset_text(),
            ]
            found += [label for axis in (axes.xaxis, axes.yaxis) for label in tick_labels(axis)]
        found += [axes.title, axes._left_title, axes._right_title, *axes.texts]  # type: ignore[attr-defined]
        found += axes.get_legend().get_texts() if axes.get_legend() else []
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def tick_labels(axis: Any) -> Iterator[Text]:
    """The numbers and names at ticks within the limits."""
    for tick in axis._update_ticks():
        yield from (label for label in (tick.label1, tick.label2) if label.get_visible() and label.get_text())


def problems(fig: Figure) -> Iterator[str]:
    """What is wrong with a figure that has been drawn."""
    boxes = [(text, _box(text)) for text in drawn_texts(fig)]
    for text, box in boxes:
        if not _within(box, fig.bbox):
            yield f"{text.get_text()!r} is cut off"
    for (one, a), (other, b) in combinations(boxes, 2):
        if _meet(a, b):
            yield f"{one.get_text()!r} and {other.get_text()!r} overlap"
    blocks = [_box(text) for text in fig.texts] + [each.get_window_extent() for each in fig.legends]
    for axes in fig.axes:
        for block in blocks:
            if block is not None and _meet(block, axes.bbox):
                yield f"a legend or title lies on the axes {axes.get_title(loc='left')!r}"
    for axes in fig.axes:
        yield from _unseen(axes)


def _box(text: Text) -> Bbox:
    """Where its letters are: empty lines at the end keep a place free."""
    whole = text.get_text()
    text.set_text(whole.rstrip("\n"))
    box = text.get_window_extent()
    text.set_text(whole)
    return box


def _unseen(axes: Axes) -> Iterator[str]:
    """Series none of whose points lies within the limits."""
    view = Bbox([axes.bbox.p0 - _SLACK, axes.bbox.p1 + _SLACK])
    for line in axes.get_lines():
        points = line.get_transform().transform(np.asarray(line.get_xydata(), dtype=float))
        if len(points) and not _crosses(points, view):
            yield f"a line in {axes.get_title(loc='left')!r} is out of sight: {line.get_label()}"
    for marks in axes.collections:
        points = np.asarray(marks.get_offset_transform().transform(marks.get_offsets()))
        if marks.get_paths() and len(marks.get_offsets()) > 1 and not _crosses(points, view):
            yield f"marks in {axes.get_title(loc='left')!r} are out of sight"
    for patch in axes.patches:
        if not patch.get_window_extent().overlaps(view):
            yield f"a bar in {axes.get_title(loc='left')!r} is out of sight"


def _crosses(points: Any, view: Bbox) -> bool:
    finite = points[np.isfinite(points).all(axis=1)]
    if not len(finite):
        return False
    low, high = finite.min(axis=0), finite.max(axis=0)
    return bool((low <= view.p1).all() and (high >= view.p0).all())


def hard_to_read(fig: Figure) -> Iterator[str]:
    """Texts whose contrast to what lies behind them is too low; the figure loses its texts."""
    texts = [(text, _box(text)) for text in drawn_texts(fig)]
    for text, _ in texts:
        text.set_alpha(0.0)
    fig.set_layout_engine("none")
    canvas = fig.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[::-1, :, :3] / 255
    for text, box in texts:
        left, right, low, high = (max(int(side), 0) for side in (box.x0, box.x1, box.y0, box.y1))
        behind = np.median(pixels[low : high + 1, left : right + 1].reshape(-1, 3), axis=0)
        found = contrast(text.get_color(), tuple(behind))
        if found < LEGIBLE - 0.01:
            yield f"{text.get_text()!r} has contrast {found:.2f}"
        text.set_alpha(None)


def _within(box: Bbox, frame: Bbox) -> bool:
    return (
        frame.x0 - _SLACK <= box.x0
        and box.x1 <= frame.x1 + _SLACK
        and frame.y0 - _SLACK <= box.y0
        and box.y1 <= frame.y1 + _SLACK
    )


def _meet(a: Bbox, b: Bbox) -> bool:
    return min(a.x1, b.x1) - max(a.x0, b.x0) > _SLACK and min(a.y1, b.y1) - max(a.y0, b.y0) > _SLACK
