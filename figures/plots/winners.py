"""What rules for the number of winners |C| cost, and how large the best |C| is, by architecture and time in training.

wtacrs draw winners.json OUT.png
"""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from wtacrs.figures import style
from wtacrs.figures.plots.winner_sweep import CURVES
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.winners import WinnersResult
from wtacrs.validation.summaries.winners import QUANTILE, WinnerCases, grouped, rule_label, winner_cases

KINDS = {"oracle": ("#0072b2", "o"), "row-norms": ("#e69f00", "s"), "stale": ("#009e73", "D")}
TIMES = ("#cc79a7", "#882255", "#332288", "#000000")
_SPREAD = 0.24
_FAR = 100.0


def draw(result: WinnersResult, path: Path) -> Path:
    """Write the figure as PNG and return its path; arguments and errors as in `build`."""
    return style.save(build(result), path)


def build(result: WinnersResult) -> Sheet:
    """The figure as an object: the first panel has the regrets of all rules, the others the best |C|/k by kind of scores.

    A dot is the median, a line reaches to the 95 % quantile of regrets, or from quartile to quartile of |C|/k. An arrow
    marks quantiles beyond the axis.

    Raises:
        InputError: if the result is of another kind or has no case.
    """
    expect(result, WinnersResult, "the argument result")
    cases = winner_cases(result)
    if not cases.share.size:
        raise style.NothingToDraw("the result has no case to draw")
    kinds = list(grouped(cases, "scores"))
    height = 1.5 + 0.32 * (len(result.rules) + len(cases.levels("model")))
    with style.figure(10.0, max(height, 3.2) * (1 if len(kinds) == 1 else 1.25)) as fig:
        first, *others = fig.panels(1 if len(kinds) == 1 else 2, 2, count=1 + len(kinds))
        beyond = _regrets(first, result, kinds)
        for axes, (kind, some) in zip(others, kinds, strict=True):
            _shares(axes, some, cases)
            style.tag(axes, f"best |C| / k, {CURVES[kind][1]}")
        fig.heading("Which number of winners |C|")
        fig.key(_legend(cases, [kind for kind, _ in kinds], beyond=beyond), ncols=4)
    return fig


def _regrets(axes: Axes, result: WinnersResult, kinds: list[tuple[str, WinnerCases]]) -> bool:
    """Draw the regrets; whether some 95 % quantile lies beyond the axis."""
    rules = list(result.rules)
    most = max((one.quantile for _, some in kinds for one in some.summaries.values()), key=_finite)
    edge = min(max(1.3 * _finite(most), 2.0), _FAR)
    beyond = False
    for number, (kind, some) in enumerate(kinds):
        colour, marker = KINDS[kind]
        for place, rule in enumerate(rules):
            one = some.summaries[rule]
            y = place + _SPREAD * (number - (len(kinds) - 1) / 2)
            axes.plot([one.median, min(one.quantile, edge)], [y, y], color=colour, linewidth=2.0, zorder=2)
            if one.quantile > edge:
                beyond = True
                axes.plot([edge], [y], marker=">", color=colour, clip_on=False, zorder=3)
            if one.median <= edge:
                axes.plot([one.median], [y], marker=marker, color=colour, markersize=4.5, zorder=3)
    axes.axvline(1.0, color=style.GREY, linewidth=0.9, zorder=1)
    axes.set_xscale("log")
    axes.set_xlim(0.9, edge)
    axes.set_xticks([tick for tick in (1, 1.5, 2, 3, 5, 10, 20, 50, 100) if tick <= edge])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(range(len(rules)), [rule_label(rule) for rule in rules])
    axes.set_ylim(len(rules) - 0.5, -0.5)
    style.tag(axes, f"variance over the least one: median to {QUANTILE:.0%} quantile")
    return beyond


def _finite(value: float) -> float:
    return value if math.isfinite(value) else _FAR


def _shares(axes: Axes, some: WinnerCases, cases: WinnerCases) -> None:
    models, times = cases.levels("model"), cases.levels("step")
    for place, model in enumerate(models):
        for number, step in enumerate(times):
            found = some.where("model", model).where("step", step)
            if not found.share.size:  # no earlier state whose norms would be stale
                continue
            low, middle, high = found.shares
            y = place + _SPREAD * (number - (len(times) - 1) / 2)
            colour = TIMES[number % len(TIMES)]
            axes.plot([low, high], [y, y], color=colour, linewidth=2.0, zorder=2)
            axes.plot([middle], [y], "o", color=colour, markersize=4.5, zorder=3)
    axes.set_xlim(-0.03, 1.03)
    axes.set_yticks(range(len(models)), [style.shorten(model, 24) for model in models])
    axes.set_ylim(len(models) - 0.5, -0.5)


def _legend(cases: WinnerCases, kinds: list[str], *, beyond: bool) -> list[Line2D]:
    scores = [
        Line2D([], [], color=KINDS[kind][0], marker=KINDS[kind][1], markersize=4.5, label=CURVES[kind][1])
        for kind in kinds
    ]
    times = [
        Line2D([], [], color=TIMES[number % len(TIMES)], marker="o", markersize=4.5, label=f"step {step}")
        for number, step in enumerate(cases.levels("step"))
    ]
    arrow = Line2D([], [], color=style.GREY, marker=">", label="beyond the axis")
    return [*scores, *times, *([arrow] if beyond else [])]
