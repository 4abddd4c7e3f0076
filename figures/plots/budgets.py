"""Difference from exact training, gradient variance and memory against the budget.

wtacrs draw budgets.json OUT.png
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogFormatterMathtext, LogLocator, NullFormatter, NullLocator

from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.budgets import BudgetLimit, BudgetRange, BudgetsResult
from wtacrs.validation.records.units import megabytes

# line style, label, and how far to the side, so that intervals of two kinds are seen at one budget
SCORES: dict[str, tuple[Any, str, float]] = {
    "oracle": ("-", "oracle scores", 1 / 1.02),
    "row-norms": (style.DASHES[1], "row-norm scores", 1.02),
}
_MEMORY = {
    "kept": ("-", "kept for the backward pass"),
    "linear": (style.DASHES[1], "by linear layers alone"),
    "peak": (style.DASHES[2], "peak"),
}


def draw(result: BudgetsResult, path: str | Path) -> Path:
    """Write the figure as PNG and return its path; arguments and errors as in `build`."""
    return style.save(build(result), path)


def build(result: BudgetsResult) -> Sheet:
    """The figure as an object, with a panel for everything that the result has.

    The difference of the metric from exact training, with 95 % intervals, the margin, and the budget at which variance
    costs it as a band; Var Ĝ / ‖G‖²; the same over the minibatch's variance, with a line where both are alike; bytes of
    a step over those of the exact one.

    Raises:
        InputError: if the result is of another kind or has no budget.
    """
    expect(result, BudgetsResult, "the argument result")
    if not result.points:
        raise style.NothingToDraw("the result has no budget to draw")
    panels: list[Callable[[Axes, BudgetsResult], None]] = [_variance]
    if result.exact is not None:
        panels.insert(0, _difference)
    if any(point.noise for point in result.points):
        panels.append(_noise)
    if result.memory is not None:
        panels.append(_memory)
    columns = 3 if len(panels) == 3 else 2
    lines = math.ceil(len(panels) / columns)
    with style.figure(4.7 * columns if columns == 2 else 12.4, 3.1 * lines + 1.3) as fig:
        drawn = fig.panels(lines, columns, count=len(panels))
        for axes, panel in zip(drawn, panels, strict=True):
            _budgets(axes, [p.budget for p in result.points])
            panel(axes, result)
        fig.heading(_title(result))
        handles, labels = _entries(drawn)
        fig.key(handles, labels, ncols=columns)
    return fig


def _title(result: BudgetsResult) -> str:
    name = f"{style.shorten(result.estimator, 40)} on {result.task}"
    if result.exact is None:
        return f"{name}: {style.shorten(result.model, 40)}, {result.layers} sampled layers"
    seeds = len(result.seeds)
    return f"{name}: {seeds} seed{'s' * (seeds > 1)} of {result.steps} steps, {result.dev_size:,} dev examples"


def _entries(drawn: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    """What stands in the legend, once each."""
    found: dict[str, Any] = {}
    for axes in drawn:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _difference(axes: Axes, result: BudgetsResult) -> None:
    assert result.exact is not None
    look = style.look(result.estimator)
    for point in result.points if len(result.seeds) > 1 else []:
        if point.scores is not None:
            values = [100 * (a - b) for a, b in zip(point.scores.values, result.exact.values, strict=True)]
            axes.plot([point.budget] * len(values), values, ".", color=look.colour, markersize=4, alpha=0.45)
    found = [(float(p.budget), p.difference) for p in result.points if p.difference is not None]
    x, y = [budget for budget, _ in found], [100 * d.value for _, d in found]
    ends = [(100 * (d.value - d.low), 100 * (d.high - d.value)) for _, d in found if None not in (d.low, d.high)]  # type: ignore[operator]
    if len(ends) == len(found):
        axes.errorbar(
            x, y, list(zip(*ends, strict=True)), fmt="none", ecolor=look.colour, elinewidth=1.1, capsize=4,
            label="95 % interval",
        )  # fmt: skip
    axes.axhline(0.0, color=style.INK, linewidth=1.3)
    axes.plot(
        x, y, color=look.colour, marker=look.marker, markeredgecolor="white", markeredgewidth=0.6, zorder=3,
        label=f"{style.shorten(result.estimator, 40)}, mean",
    )  # fmt: skip
    if result.cost is not None:
        cost, limits = result.cost, axes.get_xlim()
        axes.axhline(
            -100 * cost.margin, color=style.GREY, linestyle=style.DASHES[1], linewidth=1.1, label="margin"
        )
        if cost.threshold is not None:
            _mark(axes, cost.threshold, "variance costs the margin, with interval")
        axes.set_xlim(limits)
    style.tag(axes, f"dev {result.metric} − exact, in points")


def _mark(axes: Axes, at: BudgetRange, label: str) -> None:
    """A line at a budget, and a band for its interval, which ends with the axis where it lies beyond."""
    left, right = axes.get_xlim()

    def place(limit: BudgetLimit) -> float:
        return {"below": left, "at": float(limit.budget), "above": right}[limit.side]

    if at.low is not None and at.high is not None and place(at.low) < place(at.high):
        axes.axvspan(place(at.low), place(at.high), color=style.GREY, alpha=0.2, linewidth=0, label=label)
    if at.value.side == "at":
        axes.axvline(place(at.value), color=style.GREY, linewidth=1.1)


def _variance(axes: Axes, result: BudgetsResult) -> None:
    for kind in SCORES:
        found = [(float(p.budget), p.variance[kind]) for p in result.points if p.variance.get(kind, 0.0) > 0]
        if found:
            _curve(axes, result, kind, found)
    _log(axes)
    style.tag(axes, f"Var Ĝ / ‖G‖², median of {result.layers} layers, exact model")


def _noise(axes: Axes, result: BudgetsResult) -> None:
    colour = style.look(result.estimator).colour
    for kind in SCORES:
        ratios = [(float(p.budget), ratio) for p in result.points if (ratio := p.ratio(kind)) is not None]
        found = [(budget, ratio.value) for budget, ratio in ratios if 0 < ratio.value < math.inf]
        if not found:
            continue
        aside = SCORES[kind][2]
        _curve(axes, result, kind, [(budget * aside, value) for budget, value in found])
        for budget, ratio in ratios:
            if ratio.low and ratio.high is not None and math.isfinite(ratio.high):
                axes.vlines(budget * aside, ratio.low, ratio.high, color=colour, linewidth=1.0, alpha=0.6)
    _log(axes)
    axes.axhline(1.0, color=style.INK, linewidth=1.1, label="as much variance as the minibatch has")
    limits = axes.get_xlim()
    for one in result.noise_thresholds:
        if one.scores == "row-norms" and one.at.value.side == "at":
            axes.axvline(float(one.at.value.budget), color=style.GREY, linewidth=1.1)
    axes.set_xlim(limits)
    style.tag(axes, f"variance / minibatch variance, {result.batches} batches")


def _curve(axes: Axes, result: BudgetsResult, kind: str, found: Sequence[tuple[float, float]]) -> None:
    look = style.look(result.estimator)
    dash, label, _ = SCORES[kind]
    axes.plot(
        *zip(*found, strict=True), color=look.colour, linestyle=dash, marker=look.marker, markeredgecolor="white",
        markeredgewidth=0.6, label=f"variance, {label}",
    )  # fmt: skip


def _log(axes: Axes) -> None:
    """A logarithmic axis whose ticks are plain numbers; powers of ten where it spans more than three of them."""
    if not axes.lines:
        return
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    wide = high / low > 1e3
    axes.yaxis.set_major_locator(LogLocator(numticks=9) if wide else LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(
        LogFormatterMathtext() if wide else FuncFormatter(lambda value, _: f"{value:g}")
    )
    axes.yaxis.set_minor_locator(NullLocator())


def _memory(axes: Axes, result: BudgetsResult) -> None:
    assert result.memory is not None
    exact = result.memory
    for name, (dash, label) in _MEMORY.items():
        unit = getattr(exact, name)
        found = [(float(p.budget), getattr(p.memory, name) / unit) for p in result.points if p.memory and unit]
        if found:
            axes.plot(
                *zip(*found, strict=True), color=style.look("crs").colour, linestyle=dash, marker="s", markersize=4,
                label=f"{label} (exact: {megabytes(unit)} MB)",
            )  # fmt: skip
    axes.axhline(1.0, color=style.INK, linewidth=1.1)
    axes.set_ylim(bottom=0.0)
    style.tag(axes, "bytes of a step / exact step")


def _budgets(axes: Axes, budgets: Sequence[int | float]) -> None:
    axes.set_xscale("log")
    low, high = float(min(budgets)), float(max(budgets))
    axes.set_xlim((low / 1.18, high * 1.18) if high > low else (low / 2, high * 2))
    axes.set_xticks([float(b) for b in budgets])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    counted = all(type(b) is int for b in budgets)
    axes.set_xlabel("budget: rows kept" if counted else "budget: rows kept / rows")
