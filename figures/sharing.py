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
            for axes in group:
                if _neighbour(axes, panels, axis) in group:
                    hidden = "labelbottom" if axis == "x" else "labelleft"
                    axes.tick_params(axis=axis, which="both", **{hidden: False})


def hide_labels(panels: Sequence[Axes]) -> None:
    """Where the numbers are left out, leave out the label of the axis too."""
    for axes in panels:
        x, y = axes.xaxis.get_tick_params(), axes.yaxis.get_tick_params()
        axes.xaxis.label.set_visible(x["labelbottom"] or x["labeltop"])
        axes.yaxis.label.set_visible(y["labelleft"] or y["labelright"])


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


def _neighbour(axes: Axes, panels: Sequence[Axes], axis: _Axis) -> Axes | None:
    """The next panel below (x) or to the left (y)."""
    mine = axes.get_position()
    along, across = ("y0", "x0") if axis == "x" else ("x0", "y0")
    before = [
        (getattr(other.get_position(), along), other)
        for other in panels
        if math.isclose(getattr(mine, across), getattr(other.get_position(), across), abs_tol=1e-3)
        and getattr(other.get_position(), along) < getattr(mine, along) - 1e-3
    ]
    return max(before, key=lambda found: found[0])[1] if before else None
