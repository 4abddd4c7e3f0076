"""How many times smaller the peak of a step gets while batch, width, depth or length grows, with the limit.

wtacrs draw limits.json OUT.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.limits import LimitCurve, LimitsResult

NAMES = {
    "sampled": "sampled rows alone",
    "lean": "lean neighbours",
    "again": "lean, made again",
    "again, sampled": "lean, made again, sampled rows",
    "checkpointed": "checkpointing",
    "again, checkpointed": "checkpointing, lean output layer",
}
_COLOURS = ("#e69f00", "#56b4e9", "#0072b2", "#009e73", "#cc79a7", "#d55e00")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_LABELS = {
    "batch": "examples per batch",
    "width": "width d (D = d, F = 4d)",
    "depth": "blocks of encoder and decoder each",
    "length": "tokens of an input",
}


def draw(result: LimitsResult, path: Path) -> Path:
    """Write the figure as PNG and return its path; arguments and errors as in `build`."""
    return style.save(build(result), path)


def build(result: LimitsResult) -> Sheet:
    """The figure as an object: a panel for each size that grows, a line for each way; dotted: its limit.

    Raises:
        InputError: if the result is of another kind or has no curve.
    """
    expect(result, LimitsResult, "the argument result")
    if not result.curves:
        raise style.NothingToDraw("the result has no curve to draw")
    grown = list(dict.fromkeys(curve.grows for curve in result.curves))
    with style.figure(10.0, 7.4) as fig:
        panels = fig.panels(2, 2, count=len(grown))
        for axes, grows in zip(panels, grown, strict=True):
            _panel(axes, [curve for curve in result.curves if curve.grows == grows])
            axes.set_xlabel(_LABELS[grows])
        fig.heading(
            f"{result.base}, {result.batch_size} × {result.length} / {result.target_length} tokens, "
            f"{result.rows:.0%} of rows: peak of a stock step over that of a way",
        )
        handles, labels = panels[0].get_legend_handles_labels()
        fig.key(handles, labels, ncols=3)
    return fig


def _panel(axes: Axes, curves: Sequence[LimitCurve]) -> None:
    places = list(NAMES)
    for curve in curves:
        place = places.index(curve.way)
        axes.plot(
            curve.sizes, curve.ratios, color=_COLOURS[place], marker=_MARKERS[place], markersize=4,
            label=NAMES[curve.way],
        )  # fmt: skip
        if curve.limit is not None:
            axes.plot(
                curve.sizes[-1], curve.limit, marker="_", color=_COLOURS[place], markersize=16, clip_on=False
            )
    axes.axhline(1.0, color=style.GREY, linewidth=0.9, zorder=1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.06)
    style.tag(axes, "times smaller; at the right edge: limits")
