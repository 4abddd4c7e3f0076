"""Dev metric and gradient variance against the budget, exact training as a band.

wtacrs draw budgets.json OUT.png
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.budgets import BudgetsResult, Scores

VARIANCES = {"oracle": ("-", "oracle scores"), "row-norms": (style.DASHES[1], "row-norm scores")}


def draw(result: BudgetsResult, path: str | Path) -> Path:
    """Write the figure as PNG and return its path; arguments and errors as in `build`."""
    return style.save(build(result), path)


def build(result: BudgetsResult) -> Sheet:
    """The figure as an object: the metric on the left, Var Ĝ / ‖G‖² on the right.

    Broad bars are standard errors over seeds, thin ones those of the dev sample; dots are the seeds. The band is exact
    training with both errors joined.

    Raises:
        InputError: if the result is of another kind or has no budget.
    """
    expect(result, BudgetsResult, "the argument result")
    if not result.points:
        raise style.NothingToDraw("the result has no budget to draw")
    colour = style.look(result.estimator).colour
    with style.figure(9.4, 4.4) as fig:
        metric, variance = fig.panels(1, 2)
        _metric(metric, result, colour)
        _variance(variance, result, colour)
        for axes in (metric, variance):
            _budgets(axes, [p.budget for p in result.points])
        seeds = len(result.seeds)
        fig.heading(
            f"{style.shorten(result.estimator, 40)} on {result.task}: {seeds} seed{'s' * (seeds > 1)} of "
            f"{result.steps} steps, {result.dev_size:,} dev examples"
        )
        handles, labels = metric.get_legend_handles_labels()
        more, names = variance.get_legend_handles_labels()
        fig.key([*handles, *more], [*labels, *names], ncols=2)
    return fig


def _metric(axes: Axes, result: BudgetsResult, colour: str) -> None:
    level, half = result.exact.mean, _joined(result.exact)
    axes.axhspan(
        level - half, level + half, color=style.GREY, alpha=0.22, linewidth=0, label="exact ± SE, both kinds"
    )
    axes.axhline(level, color=style.INK, linewidth=1.3)
    x = [float(p.budget) for p in result.points]
    means = [p.scores.mean for p in result.points]
    seeds, dev = ([getattr(p.scores, name) for p in result.points] for name in ("seed_error", "dev_error"))
    if None not in seeds:
        axes.errorbar(x, means, seeds, fmt="none", ecolor=colour, elinewidth=7, alpha=0.3, label="± SE over seeds")
    if None not in dev:
        axes.errorbar(
            x, means, dev, fmt="none", ecolor=colour, elinewidth=1.1, capsize=4, label="± SE of the dev sample"
        )
    for point in result.points if len(result.seeds) > 1 else []:
        values = point.scores.values
        axes.plot([point.budget] * len(values), values, ".", color=colour, markersize=4, alpha=0.55)
    look = style.look(result.estimator)
    axes.plot(
        x, means, color=colour, marker=look.marker, markeredgecolor="white", markeredgewidth=0.6, zorder=3,
        label=f"{style.shorten(result.estimator, 40)}, mean",
    )  # fmt: skip
    style.tag(axes, f"dev {result.metric} at the end of training")


def _joined(scores: Scores) -> float:
    return math.hypot(scores.seed_error or 0.0, scores.dev_error or 0.0)


def _variance(axes: Axes, result: BudgetsResult, colour: str) -> None:
    look = style.look(result.estimator)
    for kind, (dash, label) in VARIANCES.items():
        found = [(float(p.budget), p.variance[kind]) for p in result.points if p.variance.get(kind, 0.0) > 0]
        if found:
            x, y = zip(*found, strict=True)
            axes.plot(
                x, y, color=colour, linestyle=dash, marker=look.marker, markeredgecolor="white",
                markeredgewidth=0.6, label=f"variance, {label}",
            )  # fmt: skip
            axes.set_yscale("log")
    style.tag(axes, f"Var Ĝ / ‖G‖², median of {result.layers} layers, exact model")


def _budgets(axes: Axes, budgets: Sequence[int | float]) -> None:
    axes.set_xscale("log")
    axes.set_xticks([float(b) for b in budgets])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    if len(budgets) == 1:
        axes.set_xlim(budgets[0] / 2, budgets[0] * 2)
    counted = all(type(b) is int for b in budgets)
    axes.set_xlabel("budget: rows kept" if counted else "budget: rows kept / rows")
