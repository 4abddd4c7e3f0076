"""Metric of every run of an experiment, and differences from exact training against the margin of equivalence.

wtacrs draw experiment.json OUT.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from wtacrs.figures import style
from wtacrs.figures.contrast import legible
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.experiment import ExperimentResult, ExperimentRow

_BAND = "#e0f3ed"  # as the band of the margin looks on the page
_COLOURS = {
    "equivalent": "#009e73",
    "worse": "#d55e00",
    "better": "#0072b2",
    "undecided": style.GREY,
    "nothing learned": style.GREY,
}


def draw(result: ExperimentResult, path: str | Path) -> Path:
    """Write the figure as PNG and return its path."""
    return style.save(build(result), path)


def build(result: ExperimentResult) -> Sheet:
    """Left: a dot per seed and the mean; right: the difference from exact with its interval, the margin as a band."""
    expect(result, ExperimentResult, "the argument result")
    rows = list(result.rows)
    with style.figure(10.0, 1.6 + 0.42 * len(rows)) as fig:
        left, right = fig.panels(1, 2, sharey=True)
        for y, row in enumerate(rows):
            _runs(left, y, row, result.values(row.label))
            _difference(right, y, row)
        low, high = right.get_xlim()
        margin = float(result.config["margin"])
        low, high = min(low, -1.1 * margin), max(high, 1.1 * margin)  # the whole band is seen
        right.set_xlim(low, high + 0.28 * (high - low))  # room for the verdicts
        left.set_yticks(range(len(rows)), [style.shorten(row.label, 40) for row in rows])
        left.set_ylim(len(rows) - 0.5, -0.5)
        left.axvline(result.majority, color=style.GREY, linewidth=1.0, linestyle=style.DASHES[1], zorder=1)
        left.set_xlabel(f"dev {result.metric} (dashed: most frequent class)")
        right.axvspan(-margin, margin, color="#009e73", alpha=0.12, linewidth=0, zorder=0)
        right.axvline(0.0, color=style.GREY, linewidth=0.9, zorder=1)
        right.set_xlabel(
            f"difference from exact, {1 - 2 * float(result.config['level']):.0%} interval; band: ± margin"
        )
        seeds = len(result.config["seeds"])
        fig.heading(f"{result.config['name']}: {seeds} seeds, {result.dev_size:,} dev examples")
    return fig


def _runs(axes: Axes, y: int, row: ExperimentRow, values: Sequence[float]) -> None:
    axes.plot(values, [y] * len(values), "o", color=style.INK, alpha=0.4, markersize=4, zorder=2)
    axes.plot([row.mean], [y], "|", color=style.INK, markersize=14, markeredgewidth=2, zorder=3)


def _difference(axes: Axes, y: int, row: ExperimentRow) -> None:
    if row.standing is None:
        return
    colour = _COLOURS.get(row.standing.verdict, style.GREY)
    axes.plot([row.standing.low, row.standing.high], [y, y], color=colour, linewidth=2.2, zorder=2)
    axes.plot([row.standing.difference], [y], "o", color=colour, zorder=3)
    axes.annotate(
        row.standing.verdict, (row.standing.high, y), xytext=(5, 0), textcoords="offset points", va="center",
        color=legible(colour, _BAND), fontsize="small",
    )  # fmt: skip
