"""Draws a figure of ours into axes of the user's own: it stands in for the `Sheet` that a plot fills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wtacrs.estimators import InputError
from wtacrs.figures.sharing import Shared, hide_labels, share

Given = Axes | Sequence[Axes]


class WrongNumberOfAxes(InputError):
    """More or fewer axes are given than the figure has panels."""


class GivenAxes:
    """What plots call of a `Sheet`, on axes that are there already.

    Titles of the whole figure are left out, its legend goes into the first axes, and the rest of the user's figure is not
    touched.

    Args:
        axes: one, or as many as the figure has panels, in reading order.
    """

    def __init__(self, axes: Given) -> None:
        self._axes = [axes] if isinstance(axes, Axes) else list(numpy.asarray(axes, dtype=object).ravel())
        if not self._axes or not all(isinstance(each, Axes) for each in self._axes):
            raise InputError(f"ax={axes!r}: axes of matplotlib are needed")

    @property
    def figure(self) -> Figure:
        """The user's figure."""
        return self._axes[0].figure.get_figure(root=True)

    @property
    def axes(self) -> list[Axes]:
        """Those that are given."""
        return self._axes

    def panels(
        self,
        rows: int = 1,
        columns: int = 1,
        *,
        count: int | None = None,
        sharex: Shared = False,
        sharey: Shared = False,
    ) -> list[Axes]:
        """The given axes in place of new ones.

        Raises:
            WrongNumberOfAxes: if there are more or fewer of them than the figure has panels.
        """
        count = rows * columns if count is None else count
        if count != len(self._axes):
            given = f"{len(self._axes)} axes are" if len(self._axes) > 1 else "one is"
            has = f"{count} panels" if count > 1 else "one panel"
            raise WrongNumberOfAxes(f"ax: {given} given, and the figure has {has}")
        share(self._axes, columns, sharex=sharex, sharey=sharey)
        return list(self._axes)

    def key(self, handles: Sequence[Any], labels: Sequence[str] | None = None, **_: Any) -> None:
        """A legend in the first axes."""
        names = [str(handle.get_label()) for handle in handles] if labels is None else list(labels)
        self._axes[0].legend(list(handles), names)

    def colorbar(self, *arguments: Any, **options: Any) -> Any:
        """One of the user's figure."""
        return self.figure.colorbar(*arguments, **options)

    def heading(self, *_: Any, **__: Any) -> None:
        """Left out: the figure is the user's."""

    def finish(self) -> None:
        """Leave labels out where a neighbour says them."""
        hide_labels(self._axes)

    def supylabel(self, label: str) -> None:
        """The label of all panels stands at the first."""
        self._axes[0].set_ylabel(label)
