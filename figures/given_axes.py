"""Draws a figure of ours into axes of the user's own: it stands in for the `Figure` that a plot fills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from wtacrs.estimators import InputError

Given = Axes | Sequence[Axes]


class GivenAxes:
    """What plots call of a `Figure`, on axes that are there already.

    Titles of the whole figure are left out, its legend goes into the first axes, and the rest of the user's figure is not
    touched.

    Args:
        axes: one, or as many as the figure has panels, in reading order.
    """

    def __init__(self, axes: Given) -> None:
        self._axes = [axes] if isinstance(axes, Axes) else list(numpy.asarray(axes, dtype=object).ravel())
        if not self._axes or not all(isinstance(each, Axes) for each in self._axes):
            raise InputError(f"ax={axes!r}: axes of matplotlib are needed")
        self._taken = 0

    @property
    def figure(self) -> Figure:
        """The user's figure."""
        return self._axes[0].figure.get_figure(root=True)

    @property
    def axes(self) -> list[Axes]:
        """Those that are given."""
        return self._axes

    def subplots(
        self, nrows: int = 1, ncols: int = 1, *, squeeze: bool = True, sharey: bool | str = False, **_: Any
    ) -> Any:
        """The given axes in place of new ones."""
        panels = numpy.array([self._next(nrows * ncols) for _ in range(nrows * ncols)], dtype=object)
        if sharey:
            for panel in panels[1:]:
                panel.sharey(panels[0])
                panel.tick_params(labelleft=False)
        if panels.size == 1 and squeeze:
            return panels[0]
        shaped = panels.reshape(nrows, ncols)
        return shaped.ravel() if squeeze and 1 in (nrows, ncols) else shaped

    def add_gridspec(self, *_: Any, **__: Any) -> Any:
        """Whatever is asked of it leads to `add_subplot`."""
        return _Anything()

    def add_subplot(self, *_: Any, **__: Any) -> Axes:
        """The next of the given axes."""
        return self._next(self._taken + 1)

    def legend(self, handles: Any = (), labels: Any = None, **options: Any) -> Legend:
        """A legend in the first axes."""
        handles = options.pop("handles", handles)
        known = {name: options[name] for name in ("title", "ncols", "fontsize") if name in options}
        first = self._axes[0]
        return first.legend(handles=handles, **known) if labels is None else first.legend(handles, labels, **known)

    def colorbar(self, *arguments: Any, **options: Any) -> Any:
        """One of the user's figure."""
        return self.figure.colorbar(*arguments, **options)

    def suptitle(self, *_: Any, **__: Any) -> None:
        """Left out: the figure is the user's."""

    supylabel = supxlabel = text = suptitle

    def get_figheight(self) -> float:
        """Of the user's figure, in inches."""
        return float(self.figure.get_figheight())

    def _next(self, needed: int) -> Axes:
        if self._taken == len(self._axes):
            raise InputError(f"ax: {len(self._axes)} axes are given, and the figure has at least {needed} panels")
        self._taken += 1
        return self._axes[self._taken - 1]


class _Anything:
    def __getitem__(self, _: Any) -> _Anything:
        return self

    def subgridspec(self, *_: Any, **__: Any) -> _Anything:
        return self
