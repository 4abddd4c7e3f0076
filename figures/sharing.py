"""Axes that share their scales: numbers stand where no neighbour says them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes

from wtacrs.estimators import InputError

_Axis = Literal["x", "y"]
Shared = bool | Literal["row", "col"]


def share(panels: Sequence[Axes], columns: int, *, sharex: Shared, sharey: Shared) -> None:
    """Join the scales of panels in reading order, of so many columns, as `Figure.subplots` does.

    Numbers are left out beside a panel to the left, or above a panel below, that shares the scale: as the panels lie in
    the figure, not as they are counted.

    Raises:
        InputError: if axes share a scale with others already.
    """
    modes: tuple[tuple[_Axis, Shared], ...] = (("x", sharex), ("y", sharey))
    for axis, mode in modes:
        groups: dict[int, list[Axes]] = {}
        for place, axes in enumerate(panels):
            groups.setdefault(_group(place, columns, mode), []).append(axes)
        for group in groups.values():
            _join(group, axis)


def _group(place: int, columns: int, mode: Shared) -> int:
    if mode == "row":
        return place // columns
    if mode == "col":
        return place % columns
    return 0 if mode else place


def _join(group: Sequence[Axes], axis: _Axis) -> None:
    first = group[0]
    for axes in group[1:]:
        shared = first.get_shared_x_axes() if axis == "x" else first.get_shared_y_axes()
        if shared.joined(first, axes):
            continue
        try:
            (axes.sharex if axis == "x" else axes.sharey)(first)
        except ValueError:
            raise InputError(
                f"ax: these panels share their {axis} axis, and one of the axes shares it with others"
            ) from None
    for axes in group:
        if any(_tells(other, axes, axis) for other in group):
            axes.tick_params(axis=axis, which="both", **{"labelbottom" if axis == "x" else "labelleft": False})


def _tells(other: Axes, axes: Axes, axis: _Axis) -> bool:
    """Whether the other axes lie below (x) or to the left (y) in the same column or row."""
    mine, theirs = axes.get_position(), other.get_position()
    if axis == "x":
        return math.isclose(mine.x0, theirs.x0, abs_tol=1e-3) and theirs.y0 < mine.y0 - 1e-3
    return math.isclose(mine.y0, theirs.y0, abs_tol=1e-3) and theirs.x0 < mine.x0 - 1e-3
