"""The figure that a plot fills: it fits panels, titles and legend to the size that is wanted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import FixedFormatter

from wtacrs.estimators import InputError
from wtacrs.figures.dark import dark, darken
from wtacrs.figures.fitting import thin_out, wrap
from wtacrs.figures.sharing import Shared, hide_labels, share

_Where = Literal["outside right upper", "outside lower center"]
Size = tuple[float, float | None]
"""Width and height in inches; as high as its content needs where the height is None."""

# a panel is not made narrower than this (inches) while the figure may grow, or while its height is given
_NARROWEST, _NARROWEST_AT_HEIGHT = 2.1, 1.4
_LEAST_PANEL = 0.35
_SMALLEST_SCALE = 0.75
_TITLES_AND_LEGEND = 1.3
"""What a figure needs above and below its panels in its own size, in inches, about."""
_NAMES_SHARE, _SIDE_SHARE = 0.42, 0.45
_EDGE = 0.01
# letters are a little wider at other resolutions than they are measured at
_CAUTION = 0.95
_ABOVE_TITLE, _BELOW_TITLE = 0.075, 0.06
_SCALED = (
    "font.size", "axes.titlesize", "axes.labelsize", "legend.fontsize", "xtick.labelsize", "ytick.labelsize",
    "figure.titlesize", "lines.linewidth", "lines.markersize", "xtick.minor.pad",
)  # fmt: skip
_COLOURS = (
    "text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color", "axes.facecolor",
    "figure.facecolor",
)  # fmt: skip


class Sheet(Figure):
    """A figure with its own settings, which hold whenever and by whomever it is drawn.

    Args:
        width: in inches, of the plot's own size.
        height: in inches, of the plot's own size.
        looks: styles of matplotlib, the later over the earlier.
        size: what is wanted instead. Panels side by side are set below each other where they would be too narrow,
            letters shrink to three quarters at most, and long lines are broken.
        title: whether it has one.
        dpi: dots per inch.
        rescale: whether letters may shrink.
    """

    def __init__(
        self, width: float, height: float, *, looks: Sequence[Any], size: Size | None, title: bool, dpi: int,
        rescale: bool = True,
    ) -> None:  # fmt: skip
        self._own, self._wanted, self._titled = (width, height), size, title
        wide = width if size is None else size[0]
        scale = min(1.0, max(_SMALLEST_SCALE, wide / width)) if rescale else 1.0
        self._looks: list[Any] = list(looks)
        if scale < 1.0:
            with mpl.style.context(self._looks):
                rc: Any = mpl.rcParams
                self._looks.append({name: scale * float(rc[name]) for name in _SCALED})
        self._scale = scale
        high = height * scale if size is None or size[1] is None else size[1]
        self._rows = self._own_rows = 1
        self._panels: list[Axes] = []
        self._heading = self._statement = ""
        self._side = 0.0  # width of a legend beside the title, in pixels
        self._statement_text: Any = None
        self._key: dict[str, Any] | None = None
        with self.look():
            super().__init__(figsize=(wide, high), dpi=dpi, layout="constrained")
        FigureCanvasAgg(self)

    def look(self) -> AbstractContextManager[None]:
        """Its settings, inside the block."""
        return matplotlib.style.context(self._looks)

    def draw(self, renderer: Any) -> None:
        """Draw with its settings."""
        with self.look():
            super().draw(renderer)

    def savefig(self, fname: Any, **options: Any) -> None:
        """Write with its settings."""
        with self.look():
            super().savefig(fname, **options)

    def darken(self) -> None:
        """Change the colours to those for a dark page, of what is drawn and of what will be."""
        darken(self)
        with self.look():
            rc: Any = mpl.rcParams
            self._looks.append({name: dark(rc[name]) for name in _COLOURS})

    def panels(
        self,
        rows: int = 1,
        columns: int = 1,
        *,
        count: int | None = None,
        sharex: Shared = False,
        sharey: Shared = False,
    ) -> list[Axes]:
        """Axes in reading order.

        Args:
            rows: of the plot's own size.
            columns: of the plot's own size; fewer where each would be too narrow.
            count: how many panels there are; default all.
            sharex: as in `Figure.subplots`.
            sharey: as in `Figure.subplots`.
        """
        count = rows * columns if count is None else count
        beside = self._beside(columns)
        self._rows = math.ceil(count / beside)
        grid = self.add_gridspec(self._rows, beside)
        self._panels = [self.add_subplot(grid[place // beside, place % beside]) for place in range(count)]
        share(self._panels, columns, sharex=sharex, sharey=sharey)
        self._own_rows = rows
        if self._grows:
            self.set_figheight(self.get_figheight() * max(1.0, self._rows / rows))
        return list(self._panels)

    def heading(self, title: str, statement: str = "") -> None:
        """The title of the whole figure, and smaller text below it."""
        if self._titled:
            self._heading, self._statement = title, statement

    def key(
        self, handles: Sequence[Any], labels: Sequence[str] | None = None, *, ncols: int = 1, side: bool = False
    ) -> None:
        """The legend: below the panels in at most so many columns; of numbers, to the right where there is room."""
        labels = [str(handle.get_label()) for handle in handles] if labels is None else list(labels)
        self._key = {"handles": list(handles), "labels": labels, "ncols": ncols, "side": side}

    def finish(self) -> None:
        """Set what depends on the size.

        Raises:
            InputError: if the size that is wanted leaves no room for the panels.
        """
        hide_labels(self._panels)
        if self._key is not None and self._key["handles"]:
            self._place_key(**self._key)
        if self._heading:
            self.suptitle(self._heading, x=_EDGE, ha="left", weight="bold" if self._statement else "normal")
            self._place_heading()
        for axes in self._panels:
            self._narrow_names(axes)
        if self._wanted is not None:
            with self._roomy():
                self._fit()

    @property
    def _grows(self) -> bool:
        return self._wanted is not None and self._wanted[1] is None

    def _beside(self, columns: int) -> int:
        if self._wanted is None:
            return columns
        wide, high = self._wanted
        return max(1, min(columns, int(wide / (_NARROWEST if high is None else _NARROWEST_AT_HEIGHT))))

    def _place_heading(self) -> None:
        """Break the title's lines; empty lines of the title keep the place of the statement below it free."""
        title = self._suptitle  # type: ignore[attr-defined]
        room = _CAUTION * ((1 - 2 * _EDGE) * self.bbox.width - self._side)
        title.set_text(self._heading)
        wrap(title, room)
        if not self._statement:
            return
        if self._statement_text is None:
            self._statement_text = self.text(
                _EDGE, 1.0, self._statement, va="top", linespacing=1.3, fontsize=mpl.rcParams["font.size"]
            )
            wrap(self._statement_text, room)
        box, line = title.get_window_extent(), 1.2 * title.get_fontsize() * self.dpi / 72
        below = (_ABOVE_TITLE + _BELOW_TITLE) * self.dpi + box.height
        self._statement_text.set_y(1.0 - below / self.bbox.height)
        lines = math.ceil((self._statement_text.get_window_extent().height + _BELOW_TITLE * self.dpi) / line)
        title.set_text(title.get_text() + "\n" * lines)

    def _place_key(self, handles: list[Any], labels: list[str], ncols: int, side: bool) -> None:
        room = _CAUTION * (1 - 2 * _EDGE) * self.bbox.width
        bare: dict[str, Any] = {"handlelength": 0.0, "handletextpad": 0.0} if side else {}  # numbers need no marks
        if side:
            legend = self._legend(handles, labels, 1, "outside right upper", **bare)
            self._side = legend.get_window_extent().width
            if self._side <= _SIDE_SHARE * room:
                return
            self._side = 0.0
            legend.remove()
        for columns in range(max(1, min(ncols, len(handles))), 0, -1):
            legend = self._legend(handles, labels, columns, "outside lower center", **bare)
            width = legend.get_window_extent().width
            if width <= room or columns == 1:
                break
            legend.remove()
        texts = legend.get_texts()
        spare = room - width + max((text.get_window_extent().width for text in texts), default=0.0)
        for text in texts:
            wrap(text, spare)

    def _legend(self, handles: list[Any], labels: list[str], ncols: int, where: _Where, **form: Any) -> Legend:
        return self.legend(handles, labels, ncols=ncols, loc=where, **form)

    def _narrow_names(self, axes: Axes) -> None:
        """Names beside the y axis take less than half of the width."""
        formatter = axes.yaxis.get_major_formatter()
        if isinstance(formatter, FixedFormatter) and formatter.seq:
            room = _NAMES_SHARE * self.bbox.width
            labels = axes.get_yticklabels()
            for label in labels:
                wrap(label, room)
            formatter.seq = [label.get_text() for label in labels]

    def _fit(self) -> None:
        self._lay_out()
        names = {axes: self._names_width(axes) for axes in self.axes}
        self._wrap_labels(names)
        self._lay_out()  # broken names and labels give the panels another width
        self._wrap_labels(names)
        if self._grows:
            self._grow()
        for axes in self.axes:
            thin_out(axes)

    def _names_width(self, axes: Axes) -> float:
        """How far numbers, names and label stand out to the left of the axes, in pixels."""
        whole = axes.get_tightbbox(for_layout_only=True)
        return 0.0 if whole is None else axes.bbox.x0 - whole.x0

    def _lay_out(self) -> None:
        engine = self.get_layout_engine()
        assert engine is not None
        engine.execute(self)

    def _wrap_labels(self, names: Mapping[Axes, float]) -> None:
        """Titles of panels end before the next panel, labels of axes do not reach beyond their side."""
        edge = _CAUTION * self.bbox.width
        for axes in self.axes:
            box = axes.bbox
            others = [other for other in self.axes if other is not axes]
            row = [other for other in others if other.bbox.y0 < box.y1 and box.y0 < other.bbox.y1]
            right = min((other.bbox.x0 - names[other] for other in row if other.bbox.x0 >= box.x1), default=edge)
            wrap(axes._left_title, right - box.x0)  # type: ignore[attr-defined]
            middle = (box.x0 + box.x1) / 2
            sides = 2 * min(middle, edge - middle)
            wrap(axes.xaxis.label, min(sides, 1.12 * box.width) if row else sides)
            wrap(axes.yaxis.label, 1.05 * box.height)

    def _grow(self) -> None:
        """As high as panels of the plot's own shape make it."""
        wanted = max(1.1, (self._own[1] - _TITLES_AND_LEGEND) / self._own_rows) * self._scale
        found = min((axes.get_window_extent().height for axes in self._panels), default=0.0) / self.dpi
        self.set_figheight(self.get_figheight() + self._rows * (wanted - found))
        if self._heading:
            self._place_heading()

    @contextmanager
    def _roomy(self) -> Iterator[None]:
        """Refuse a size that matplotlib finds no layout for."""
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*constrained_layout not applied.*")
            try:
                yield
            except UserWarning:
                self._refuse()
        if any(min(axes.bbox.width, axes.bbox.height) < _LEAST_PANEL * self.dpi for axes in self._panels):
            self._refuse()

    def _refuse(self) -> None:
        wide, high = self._wanted or self._own
        raise InputError(
            f"size={wide:g}x{'' if high is None else f'{high:g}'} leaves no room for the panels of this figure: make it "
            f"larger (its own size is {self._own[0]:.3g}x{self._own[1]:.3g} inches), or leave the title out"
        )
