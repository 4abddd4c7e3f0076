"""Cells of a factorial experiment, and what the first factor does at every level of the others.

wtacrs draw factorial.json OUT.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.factorial import CellMean, Contrast, FactorialResult

_COLOURS = {"differs": "#d55e00", "within the margin": "#009e73", "undecided": style.GREY}
_LEVELS = ("#4d4d4d", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")


def draw(result: FactorialResult, path: Path) -> Path:
    """Write the figure as PNG and return its path; arguments and errors as in `build`."""
    return style.save(build(result), path)


def build(result: FactorialResult) -> Sheet:
    """The figure as an object: left the mean of every cell, right effects and interactions with their intervals.

    Raises:
        InputError: if the result is of another kind.
    """
    expect(result, FactorialResult, "the argument result")
    first, *others = result.factors
    combinations = list(dict.fromkeys(_rest(cell, others) for cell in result.cells))
    rows = max(len(combinations), len(result.contrasts))
    with style.figure(11.0, 1.9 + 0.3 * rows) as fig:
        left, right = fig.panels(1, 2)
        _cells(left, result, first, others, combinations)
        _contrasts(right, result)
        seeds = len({run.seed for run in result.runs})
        fig.heading(f"{result.config['name']}: {seeds} seeds, {result.dev_size:,} dev examples")
        fig.key([_mark(place, level) for place, level in enumerate(result.factors[first])], ncols=3)
    return fig


def _rest(cell: CellMean, others: Sequence[str]) -> str:
    return ", ".join(cell.levels[name] for name in others) or "all"


def _mark(place: int, level: str) -> Line2D:
    return Line2D([], [], color=_LEVELS[place % len(_LEVELS)], marker="o", linestyle="none", label=level)


def _cells(
    axes: Axes, result: FactorialResult, first: str, others: Sequence[str], combinations: Sequence[str]
) -> None:
    levels = list(result.factors[first])
    for cell in result.cells:
        place = levels.index(cell.levels[first])
        y = combinations.index(_rest(cell, others)) + 0.16 * (place - (len(levels) - 1) / 2)
        colour = _LEVELS[place % len(_LEVELS)]
        if cell.error is not None:
            axes.plot([cell.mean - cell.error, cell.mean + cell.error], [y, y], color=colour, linewidth=1.6)
        axes.plot([cell.mean], [y], "o", color=colour, markersize=4.5)
    axes.set_yticks(range(len(combinations)), [style.shorten(text, 40) for text in combinations])
    axes.set_ylim(len(combinations) - 0.5, -0.5)
    axes.set_xlabel(f"dev {result.metric}, mean ± SE over seeds")


def _contrasts(axes: Axes, result: FactorialResult) -> None:
    margin = float(result.config["margin"])
    axes.axvspan(-margin, margin, color="#009e73", alpha=0.12, linewidth=0, zorder=0)
    axes.axvline(0.0, color=style.GREY, linewidth=0.9, zorder=1)
    several = len(next(iter(result.factors.values()))) > 2
    for y, one in enumerate(result.contrasts):
        colour = _COLOURS[one.verdict]
        axes.plot([one.low, one.high], [y, y], color=colour, linewidth=2.0, zorder=2)
        axes.plot([one.difference], [y], "D" if one.kind == "interaction" else "o", color=colour, zorder=3)
    names = [style.shorten(_name(one, result, several=several), 48) for one in result.contrasts]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    level = float(result.config["level"])
    axes.set_xlabel(
        f"effect (dot) or interaction (diamond), {1 - 2 * level:.0%} interval; band: ± margin; "
        "green: within it, red: differs"
    )


def _name(one: Contrast, result: FactorialResult, *, several: bool) -> str:
    what = f"{one.treatment}, " if several else ""
    if one.factor is None:
        return f"{what}over all" if several else one.treatment
    if one.kind == "effect":
        return f"{what}{one.factor} {one.at}"
    return f"{what}{one.factor} {one.at} − {result.factors[one.factor][0]}"
