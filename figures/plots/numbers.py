"""Numbers on marks, where a legend says what they stand for: of marks that cover each other, beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from wtacrs.figures import style
from wtacrs.figures.contrast import ink_on
from wtacrs.figures.dark import AS_IT_IS

_APART = 9.0
"""Marks nearer than this, in points, cover each other's numbers."""


def write_numbers(
    axes: Axes, places: Sequence[tuple[float, float]], numbers: Sequence[int], faces: Sequence[Any]
) -> None:
    """Write each number on its mark; a face of None is the page's.

    Call it when the limits of the axes are set.
    """
    for group in _near(axes, places):
        told = ", ".join(str(numbers[place]) for place in group)
        form: dict[str, Any] = {"fontsize": "x-small", "va": "center", "zorder": 5}
        if len(group) > 1:
            axes.annotate(told, places[group[-1]], xytext=(9, 0), textcoords="offset points", ha="left", **form)
            continue
        face = faces[group[0]]
        if face is None:
            form["color"] = style.INK
        else:
            form |= {"color": ink_on(face), "gid": AS_IT_IS}
        axes.annotate(told, places[group[0]], ha="center", **form)


def _near(axes: Axes, places: Sequence[tuple[float, float]]) -> list[list[int]]:
    """Places in groups that lie on each other, about: the size of the axes is not yet known."""
    points = axes.transData.transform(places) * 72 / axes.figure.get_figure(root=True).dpi
    groups: list[list[int]] = []
    for place, (x, y) in enumerate(points):
        for group in groups:
            first = points[group[0]]
            if abs(x - first[0]) < _APART and abs(y - first[1]) < _APART:
                group.append(place)
                break
        else:
            groups.append([place])
    return groups
