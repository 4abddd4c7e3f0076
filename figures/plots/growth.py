"""Whether larger models can be sampled more sparsely: variance against width, and by which factor it changes.

wtacrs draw growth.json OUT.png
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.growth import GrowthPoint, GrowthResult, GrowthTrend, SampledNoise
from wtacrs.validation.summaries.series import series

NAMES = {"t5": "T5", "decoder": "decoder"}
QUANTITIES = {
    "effective": "effective number of rows / rows",
    "tail": "joint norms outside the heaviest tenth",
    "coherence": "‖G‖ / sum of joint norms",
    "rows_needed": "share of rows needed",
    "minibatch": "minibatch variance / ‖G‖²",
}
_SHOWN = ("rows_needed", "relative", "ratio")
_COLOURS = {"rows_needed": "#8c510a", "relative": "#0072b2", "ratio": "#cc79a7"}
_PER = {"width": "width × 2", "depth": "depth × 2", "rows": "rows × 2", "progress": "loss − 1 nat"}


def draw(result: GrowthResult, path: str | Path) -> Path:
    """Write the figure as PNG and return its path; arguments and errors as in `build`."""
    return style.save(build(result), path)


def build(result: GrowthResult) -> Sheet:
    """The figure as an object, a row of panels for each family.

    Left the variance of every estimator over ‖G‖², in the middle over that of a minibatch, against the width at the last
    step: means over seeds, the seeds as dots. Right the factors by which three quantities change, with their intervals;
    the estimator is the one whose variance is smallest among those that sample rows by the scores.

    Raises:
        InputError: if the result is of another kind or has no model.
    """
    expect(result, GrowthResult, "the argument result")
    families = list(dict.fromkeys(point.family for point in result.points))
    if not families:
        raise style.NothingToDraw("the result has no model to draw")
    with style.figure(12.6, 1.2 + 3.6 * len(families)) as fig:
        panels = fig.panels(len(families), 3)
        for row, family in enumerate(families):
            left, middle, right = panels[3 * row : 3 * row + 3]
            last = _last(result, family)
            name = NAMES[family]
            _against_width(left, last, lambda one: one.relative, f"{name}: Var Ĝ / ‖G‖²")
            _against_width(middle, last, lambda one: one.ratio, f"{name}: Var Ĝ / minibatch variance")
            middle.axhline(1.0, color=style.GREY, linewidth=0.9, zorder=1)
            _factors(right, [trend for trend in result.trends if trend.family == family], followed(result))
        fig.heading(f"{result.headline}, {result.batch_size} × {result.length} tokens, oracle scores")
        handles, labels = panels[0].get_legend_handles_labels()
        more, names = panels[2].get_legend_handles_labels()
        fig.key([*handles, *more], [*labels, *names], ncols=4)
    return fig


def followed(result: GrowthResult) -> str:
    """The estimator whose trends are shown: the last one with the smallest budget, or the last of those without one."""
    estimators = [one.estimator for one in result.points[0].noise]
    budgets = {name: float(found[1]) for name in estimators if (found := re.search(r"budget=([\d.]+)", name))}
    smallest = min(budgets.values(), default=None)
    return [name for name in estimators if budgets.get(name) == smallest][-1]


def _last(result: GrowthResult, family: str) -> list[GrowthPoint]:
    """Models of the base depth at their last step, whole batches."""
    ours = [p for p in result.points if p.family == family and p.part == 1 and p.depth == result.base_depth]
    last = max((point.step for point in ours), default=0)
    return [point for point in ours if point.step == last]


def _against_width(
    axes: Axes, points: Sequence[GrowthPoint], value: Callable[[SampledNoise], float], label: str
) -> None:
    looks = style.looks([one.estimator for one in points[0].noise]) if points else {}
    widths = sorted({point.width for point in points})
    for place, estimator in enumerate(one.estimator for one in (points[0].noise if points else ())):
        look = looks[series(estimator)]
        found = {
            width: [value(p.noise[place]) for p in points if p.width == width and value(p.noise[place]) > 0]
            for width in widths
        }
        found = {width: values for width, values in found.items() if values}
        sizes = list(found)
        same = [one.estimator for one in points[0].noise if series(one.estimator) == series(estimator)]
        axes.plot(
            sizes, [math.exp(fmean(map(math.log, values))) for values in found.values()], color=look.colour,
            marker=look.marker, linestyle=style.DASHES[same.index(estimator) % len(style.DASHES)],
            label=style.shorten(estimator, 40),
        )  # fmt: skip
        for width, values in found.items():
            axes.plot([width] * len(values), values, ".", color=look.colour, markersize=3.5, alpha=0.5)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(widths)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("width")
    style.tag(axes, label)


def _factors(axes: Axes, trends: Sequence[GrowthTrend], estimator: str) -> None:
    kinds = list(dict.fromkeys((trend.axis, trend.condition) for trend in trends))
    shown: Mapping[str, tuple[str, str]] = {
        "rows_needed": ("rows_needed", QUANTITIES["rows_needed"]),
        "relative": (f"{estimator}, of ‖G‖²", f"{style.shorten(estimator, 28)}, of ‖G‖²"),
        "ratio": (f"{estimator}, of the minibatch", f"{style.shorten(estimator, 28)}, of the minibatch"),
    }
    for place, (key, (quantity, label)) in enumerate(shown.items()):
        found = {(t.axis, t.condition): t for t in trends if t.quantity == quantity}
        for y, kind in enumerate(kinds):
            if kind not in found:
                continue
            one, at = found[kind], y + 0.2 * (place - 1)
            axes.plot([one.low, one.high], [at, at], color=_COLOURS[key], linewidth=2.0)
            axes.plot([one.factor], [at], "osD"[place], color=_COLOURS[key], markersize=4.5)
        axes.plot([], [], marker="osD"[place], color=_COLOURS[key], linewidth=2.0, label=label)
    axes.axvline(1.0, color=style.GREY, linewidth=0.9, zorder=1)
    axes.set_yticks(range(len(kinds)), [_kind(*kind) for kind in kinds])
    axes.set_ylim(max(len(kinds), 1) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xticks(_ticks(*axes.get_xlim()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("factor, 95 % interval")


def _ticks(low: float, high: float) -> list[float]:
    """Factors that are easy to read, the finest series of which at most seven fit."""
    for series_of_one in (
        (0.9, 1.0, 1.1),
        (0.8, 0.9, 1.0, 1.1, 1.25),
        (0.5, 0.7, 1.0, 1.4, 2.0),
        (0.2, 0.5, 1.0, 2.0, 5.0),
    ):
        if series_of_one[0] <= low and high <= series_of_one[-1]:
            return [tick for tick in series_of_one if low <= tick <= high]
    return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def _kind(axis: str, condition: str) -> str:
    told = {"equal steps, a quarter of the rows": "¼ of the rows", "all models": ""}.get(condition, condition)
    return f"{_PER[axis]}, {told}" if told else _PER[axis]
