"""What the two rules for |C| cost over the best |C|, against the budget, one panel per architecture.

wtacrs draw sweep.json OUT.png --figure winner_regret
"""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from wtacrs.figures import style
from wtacrs.figures.plots.winner_sweep import CURVES, OPTIMAL, PAPER
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.sweep import SweepResult, WinnerSweep
from wtacrs.validation.summaries.sweep import regret

RULES = (("paper", PAPER, "paper's rule, P_T / (k − |C|)"), ("optimal", OPTIMAL, "optimal rule, S_T² / (k − |C|)"))
_STEP, _DECADE = ", step ", 10.0


def draw(result: SweepResult, path: Path) -> Path:
    """Write the figure as PNG and return its path; arguments and errors as in `build`."""
    return style.save(build(result), path)


def build(result: SweepResult) -> Figure:
    """The figure as an object: one row per kind of scores, one column per architecture.

    A line is the median over layers (and over training steps, where there are several) of the variance at a rule's |C|
    over that at the best |C|, its band their middle half, a dot the worst layer; 1 is perfect. The legend counts what has
    no finite regret.

    Raises:
        InputError: if the result is of another kind or has no finite regret.
    """
    expect(result, SweepResult, "the argument result")
    sweeps = [s for s in result.sweeps if _finite(s)]
    if not sweeps:
        raise style.NothingToDraw("the sweep has no layer with a best |C| and finite regrets")
    models = list(dict.fromkeys(architecture(s) for s in sweeps))
    kinds = [kind for kind in CURVES if any(s.scores == kind for s in sweeps)]
    with style.figure(max(3.5 * len(models), 5.6), 2.7 * len(kinds) + 1.2) as fig:
        panels = fig.subplots(len(kinds), len(models), sharex=True, sharey="row", squeeze=False)
        for line, kind in zip(panels, kinds, strict=True):
            for axes, model in zip(line, models, strict=True):
                mine = [s for s in sweeps if s.scores == kind and architecture(s) == model]
                _panel(axes, mine)
                style.tag(axes, f"{style.shorten(model, 44)}\n{CURVES[kind][1]}, {_count(mine)}")
            if max(_regret(s, rule) for s in sweeps if s.scores == kind for rule, *_ in RULES) > _DECADE:
                line[0].set_yscale("log")
                line[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                line[0].yaxis.set_minor_formatter(NullFormatter())
            line[0].set_ylabel("variance / that at the best |C|")
        for axes in panels.ravel():
            _ticks(axes, sorted({fraction(s) for s in sweeps}))
        for axes in panels[-1]:
            axes.set_xlabel("budget: rows kept / rows")
        fig.suptitle("What the rules for |C| cost over the best |C|", x=0.01, ha="left")
        fig.legend(handles=_legend(len(result.sweeps) - len(sweeps)), loc="outside lower center", ncols=2)
    return fig


def architecture(sweep: WinnerSweep) -> str:
    """The captured file's name without its training step."""
    return sweep.captures.split(_STEP)[0] or "layers"


def fraction(sweep: WinnerSweep) -> float:
    """The budget as a part of the rows; a number of rows becomes one."""
    return min(sweep.budget / sweep.n, 1.0) if isinstance(sweep.budget, int) else sweep.budget


def _finite(sweep: WinnerSweep) -> bool:
    found = (regret(sweep, sweep.paper), regret(sweep, sweep.optimal))
    return all(value is not None and math.isfinite(value) for value in found)


def _count(sweeps: list[WinnerSweep]) -> str:
    """How many layers, and in how many batches or steps each was captured."""
    layers = len({s.layer.rpartition("#")[0] or s.layer for s in sweeps})
    entries = len({(s.captures, s.layer) for s in sweeps})
    told = "one layer" if layers == 1 else f"{layers} layers"
    return told if entries == layers else f"{told}, {entries} captured entries"


def _panel(axes: Axes, sweeps: list[WinnerSweep]) -> None:
    axes.axhline(1.0, color=style.GREY, linewidth=1.0, zorder=1)
    axes.set_xscale("log")
    places = sorted({fraction(s) for s in sweeps})
    for rule, spec, _ in RULES:
        look = style.look(spec)
        found = [[_regret(s, rule) for s in sweeps if fraction(s) == place] for place in places]
        axes.plot(
            places, [median(values) for values in found], color=look.colour, marker=look.marker,
            markeredgecolor="white", markeredgewidth=0.6, zorder=3,
        )  # fmt: skip
        low, high = zip(*(numpy.quantile(values, [0.25, 0.75]) for values in found), strict=True)
        if len(places) > 1:
            axes.fill_between(places, low, high, color=look.colour, alpha=0.15, linewidth=0, zorder=2)
        else:
            axes.vlines(places, low, high, color=look.colour, alpha=0.3, linewidth=5, zorder=2)
        axes.plot(places, [max(values) for values in found], color=look.colour, **_WORST)


_WORST: dict[str, Any] = {
    "marker": "_",
    "markersize": 9,
    "markeredgewidth": 1.6,
    "linestyle": "none",
    "zorder": 2.5,
}


def _regret(sweep: WinnerSweep, rule: str) -> float:
    value = regret(sweep, getattr(sweep, rule))
    return math.nan if value is None else value


def _ticks(axes: Axes, places: list[float]) -> None:
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if len(places) <= 8:
        axes.set_xticks(places)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", which="minor", length=0)
    if len(places) == 1:
        axes.set_xlim(places[0] / 2, places[0] * 2)


def _legend(left_out: int) -> list[Line2D | Patch]:
    rules: list[Line2D | Patch] = []
    for _, spec, label in RULES:
        look = style.look(spec)
        rules.append(
            Line2D(
                [], [], color=look.colour, marker=look.marker, markeredgecolor="white", label=f"{label} (median)"
            )
        )
    band = Patch(color=style.GREY, alpha=0.3, label="middle half of the layers")
    worst = Line2D([], [], color=style.GREY, label="worst layer", **_WORST)
    told = "not drawn, a rule's variance is infinite or there is no best |C|"
    missing = [Line2D([], [], linestyle="none", label=f"{left_out} × {told}")] if left_out else []
    return [*rules, band, worst, *missing]
