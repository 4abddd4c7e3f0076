"""Variance ratio to the oracle: variance with the scores at hand over that with the oracle's, layer by layer.

wtacrs draw comparison.json OUT.png --figure oracle_ratio
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.compare import ComparisonResult
from wtacrs.validation.summaries.compare import OracleRatio, oracle_ratios

_TITLES = {"row-norms": "row norms ‖xᵢ‖", "stale": "stale scores: ‖xᵢ‖ · earlier ‖yᵢ‖"}


def draw(result: ComparisonResult, path: str | Path) -> Path:
    """Write the figure as PNG and return its path; errors as in `build`."""
    return style.save(build(result), path)


def build(result: ComparisonResult) -> Sheet:
    """The figure as an object: one panel per kind of scores; a dot per layer, a line through the medians.

    Raises:
        NothingToDraw: if no estimator was compared at a budget under the oracle's scores and others.
    """
    expect(result, ComparisonResult, "the argument result")
    found = [r for r in oracle_ratios(result.rows) if r.budget is not None and r.ratios]
    if not found:
        raise style.NothingToDraw("no estimator at a budget has both the oracle's scores and others")
    kinds = [kind for kind in _TITLES if any(r.scores == kind for r in found)]
    looks = style.looks(r.series for r in found)
    budgets = sorted({r.budget for r in found if r.budget is not None})
    with style.figure(4.6 * len(kinds) + 0.8, 4.6) as fig:
        panels = fig.panels(1, len(kinds), sharex=True, sharey=True)
        for axes, kind in zip(panels, kinds, strict=True):
            axes.set_yscale("log")
            style.tag(axes, _TITLES[kind])
            for place, name in enumerate(looks):
                mine = [r for r in found if r.scores == kind and r.series == name]
                _line(axes, mine, budgets, looks[name], (place - (len(looks) - 1) / 2) * 0.4 / len(looks))
            axes.axhline(1.0, color=style.GREY, linewidth=1.0, linestyle=style.DASHES[2], zorder=1)
            axes.set_xticks(range(len(budgets)), [f"{b:g}" for b in budgets])
            axes.set_xlabel("budget")
        panels[0].set_ylabel("variance / variance with the oracle's scores")
        fig.heading("Variance ratio to the oracle (a dot is a layer, the line its median)")
        handles = [
            Line2D([], [], color=look.colour, marker=look.marker, label=style.shorten(name, 50))
            for name, look in looks.items()
        ]
        fig.key(handles, ncols=2)
    return fig


def _line(
    axes: Axes, found: Sequence[OracleRatio], budgets: Sequence[float], look: style.Look, shift: float
) -> None:
    placed = sorted((budgets.index(r.budget) + shift, r.ratios) for r in found if r.budget is not None)
    for x, values in placed:
        axes.plot([x] * len(values), values, ".", color=look.colour, alpha=0.35, markersize=4, zorder=2)
    axes.plot(
        [x for x, _ in placed], [median(values) for _, values in placed], color=look.colour, marker=look.marker,
        markeredgecolor="white", markeredgewidth=0.6, zorder=3,
    )  # fmt: skip
