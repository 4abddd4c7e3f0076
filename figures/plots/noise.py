"""What estimators add to the noise of the minibatch, against the budget: the whole model, and its layers as dots.

wtacrs draw noise.json OUT.png
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from wtacrs.figures import style
from wtacrs.figures.plots.winner_sweep import CURVES
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.noise import LayerNoise, ModelNoise, NoiseResult
from wtacrs.validation.summaries.series import series

# kinds of scores side by side at one budget: line style, fill of the marker, and how far to the side
_KINDS: dict[str, tuple[Any, bool, float]] = {
    "oracle": ("-", True, 1 / 1.07),
    "stale": (style.DASHES[3], True, 1.0),
    "row-norms": (style.DASHES[1], False, 1.07),
}
_NAMES = {kind: label for kind, (_, label) in CURVES.items()}
_NEGLIGIBLE = 1e-4
_LINES = {1.0: "as much again", 0.1: "a tenth"}


def draw(result: NoiseResult, path: str | Path) -> Path:
    """Write the figure as PNG and return its path; arguments and errors as in `build`."""
    return style.save(build(result), path)


def build(result: NoiseResult) -> Sheet:
    """The figure as an object: one panel per estimator, log-log.

    A line is the squared error of the whole model over the minibatch variance, with its interval as bars; a dot is one
    layer. At 1 the estimator doubles the noise, below 0.1 it is lost in it. What is exactly zero is not on a log axis.
    An estimator without a budget is a level line.

    Raises:
        InputError: if the result is of another kind or no ratio in it is positive and finite.
    """
    expect(result, NoiseResult, "the argument result")
    shown = [m for m in result.models if _drawable(m)]
    if not shown:
        raise style.NothingToDraw("the result has no ratio that is positive and finite")
    looks = style.looks(m.estimator for m in shown)
    columns = 2 if len(looks) == 4 else min(len(looks), 3)
    lines = math.ceil(len(looks) / columns)
    with style.figure(max(3.4 * columns, 7.0), 2.9 * lines + 1.0) as fig:
        panels = fig.panels(lines, columns, count=len(looks), sharex=True, sharey=True)
        for axes, (name, look) in zip(panels, looks.items(), strict=True):
            axes.set_xscale("log")
            axes.set_yscale("log")
            models = [m for m in shown if series(m.estimator) == name]
            dots = [n for n in result.layers if series(n.estimator) == name and _drawable(n)]
            _panel(axes, models, dots, look)
            note = "\nsquared error, mostly bias²" if any(m.mostly_bias for m in models) else ""
            style.tag(axes, style.shorten(name, 46) + note)
        _ticks(panels[0], shown)
        floor = _floor(shown)
        if (low := panels[0].get_ylim()[0]) < floor:
            panels[0].set_ylim(bottom=floor)
        hidden = sum(n.ratio.value < floor for n in result.layers if _drawable(n)) if low < floor else 0
        for axes in panels:
            axes.set_xlabel("budget: rows kept / rows")
        for axes in panels:
            axes.tick_params(axis="x", which="minor", length=0)
        fig.supylabel("estimator's variance / minibatch variance")
        fig.heading(_title(result))
        fig.key(
            handles=_legend(shown, result.level, hidden),
            ncols=4 if columns == 3 else 2,
        )
    return fig


def _drawable(noise: ModelNoise | LayerNoise) -> bool:
    return 0.0 < noise.ratio.value < math.inf


def _floor(models: list[ModelNoise]) -> float:
    """Far below a tenth nothing matters any more: layers under all the lines need no decades of their own."""
    return min(_NEGLIGIBLE, min(m.ratio.value for m in models) / 3)


def _panel(axes: Axes, models: list[ModelNoise], dots: list[LayerNoise], look: style.Look) -> None:
    for level, dash in zip(_LINES, ("-", style.DASHES[2]), strict=True):
        axes.axhline(level, color=style.GREY, linewidth=1.0, linestyle=dash, zorder=1)
    for kind in dict.fromkeys(m.scores for m in models):
        dash, filled, aside = _KINDS[kind]
        layers = [(n.row_fraction * aside, n.ratio.value) for n in dots if n.scores == kind and n.row_fraction]
        if layers:
            axes.plot(
                *zip(*layers, strict=True), linestyle="none", marker="o", markersize=3.0, color=look.colour,
                markerfacecolor=look.colour if filled else "none", markeredgewidth=0.6, alpha=0.35, zorder=2,
            )  # fmt: skip
        mine = sorted((m for m in models if m.scores == kind), key=lambda m: m.row_fraction or 0.0)
        _line(axes, [m for m in mine if m.row_fraction], look, dash, filled, aside)
        for level_line in (m for m in mine if not m.row_fraction):
            axes.axhline(level_line.ratio.value, color=look.colour, linestyle=dash, zorder=3)


def _line(axes: Axes, models: list[ModelNoise], look: style.Look, dash: Any, filled: bool, aside: float) -> None:
    if not models:
        return
    axes.plot(
        [(m.row_fraction or 0.0) * aside for m in models], [m.ratio.value for m in models], color=look.colour,
        marker=look.marker, markersize=5.0, linestyle=dash, markerfacecolor=look.colour if filled else "white",
        markeredgewidth=1.1, zorder=4,
    )  # fmt: skip
    for m in models:
        low, high = m.ratio.low, m.ratio.high
        if low is not None and high is not None and math.isfinite(high):
            axes.vlines(
                (m.row_fraction or 0.0) * aside, low, high, color=look.colour, linewidth=2.2, alpha=0.8, zorder=3
            )


def _ticks(axes: Axes, models: list[ModelNoise]) -> None:
    """The panels share their axes, so that one says it for all."""
    places = sorted({m.row_fraction for m in models if m.row_fraction})
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if 0 < len(places) <= 8:
        axes.set_xticks(places)
        axes.xaxis.set_minor_formatter(NullFormatter())
    if len(places) == 1:
        axes.set_xlim(places[0] / 2, places[0] * 2)


def _title(result: NoiseResult) -> str:
    first = result.models[0]
    return (
        f"What an estimator adds to the gradient's own noise ({first.layers_told}, {first.batches} microbatches)"
    )


def _legend(shown: list[ModelNoise], level: float, hidden: int) -> list[Line2D]:
    handles = []
    for kind in dict.fromkeys(m.scores for m in shown):
        dash, filled, _ = _KINDS[kind]
        handles.append(
            Line2D([], [], color=style.INK, linestyle=dash, marker="o", markerfacecolor=style.INK if filled else "white",
                   label=f"all layers, {_NAMES.get(kind, kind)}")
        )  # fmt: skip
    handles.append(
        Line2D([], [], color=style.INK, marker="|", markersize=9, linestyle="none", label=f"{level:.0%} interval")
    )
    below = f" ({hidden} below the axis)" if hidden else ""
    dot: dict[str, Any] = {"alpha": 0.5, "marker": "o", "markersize": 3, "linestyle": "none"}
    handles.append(Line2D([], [], color=style.INK, label=f"one layer{below}", **dot))
    dashes: tuple[Any, ...] = ("-", style.DASHES[2])
    for (value, label), dash in zip(_LINES.items(), dashes, strict=True):
        handles.append(
            Line2D([], [], color=style.GREY, linewidth=1.0, linestyle=dash, label=f"{value:g}: {label}")
        )
    return handles
