"""What the two rules for |C| cost over the best |C|, against the budget, one panel per architecture.

wtacrs draw sweep.json OUT.png --figure winner_regret
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from statistics import median, median_high
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from wtacrs.figures import style
from wtacrs.figures.plots.winner_sweep import CURVES, OPTIMAL, PAPER
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.sweep import SweepResult, WinnerSweep
from wtacrs.validation.summaries.sweep import regret

RULES = (("paper", PAPER, "paper's rule, P_T / (k − |C|)"), ("optimal", OPTIMAL, "optimal rule, S_T² / (k − |C|)"))
_STEP, _DECADE = ", step ", 10.0


def draw(result: SweepResult, path: str | Path) -> Path:
    """Write the figure as PNG and return its path; arguments and errors as in `build`."""
    return style.save(build(result), path)


def build(result: SweepResult) -> Sheet:
    """The figure as an object: one row per kind of scores, one column per architecture.

    A line is the median over layers (and over training steps, where there are several) of the variance at a rule's |C|
    over that at the best |C|, its band their middle half, a dash the worst layer; 1 is perfect. Where the best |C| is
    exact and a rule's is not, the ratio is infinite and stands at the upper edge. The legend counts these, and the layers
    without a best |C|, which are not drawn.

    Raises:
        InputError: if the result is of another kind or has no best |C|.
    """
    expect(result, SweepResult, "the argument result")
    sweeps = [s for s in result.sweeps if s.best is not None]
    if not sweeps:
        raise style.NothingToDraw("the sweep has no layer with a best |C|")
    models = list(dict.fromkeys(architecture(s) for s in sweeps))
    kinds = [kind for kind in CURVES if any(s.scores == kind for s in sweeps)]
    with style.figure(max(3.5 * len(models), 5.6), 2.7 * len(kinds) + 1.2) as fig:
        panels = fig.panels(len(kinds), len(models), sharex=True, sharey="row")
        for row, kind in enumerate(kinds):
            line = panels[row * len(models) : (row + 1) * len(models)]
            for axes, model in zip(line, models, strict=True):
                mine = [s for s in sweeps if s.scores == kind and architecture(s) == model]
                _panel(axes, mine)
                style.tag(axes, f"{style.shorten(model, 44)}\n{CURVES[kind][1]}, {_count(mine)}")
            if max(_finite(_regret(s, rule) for s in sweeps if s.scores == kind for rule, *_ in RULES)) > _DECADE:
                line[0].set_yscale("log")
                line[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                line[0].yaxis.set_minor_formatter(NullFormatter())
            line[0].set_ylabel("variance / that at the best |C|")
        for axes in panels:
            _ticks(axes, sorted({fraction(s) for s in sweeps}))
        for axes in panels:
            axes.set_xlabel("budget: rows kept / rows")
        fig.heading("What the rules for |C| cost over the best |C|")
        fig.key(_legend(sweeps, len(result.sweeps) - len(sweeps)), ncols=2)
    return fig


def architecture(sweep: WinnerSweep) -> str:
    """The captured file's name without its training step."""
    return sweep.captures.split(_STEP)[0] or "layers"


def fraction(sweep: WinnerSweep) -> float:
    """The budget as a part of the rows; a number of rows becomes one."""
    return min(sweep.budget / sweep.n, 1.0) if isinstance(sweep.budget, int) else sweep.budget


def _finite(values: Iterable[float]) -> list[float]:
    """With 1, the regret of the best."""
    return [1.0, *(value for value in values if math.isfinite(value))]


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
        middle = [median_high(values) if math.inf in values else median(values) for values in found]
        axes.plot(
            places, [value if math.isfinite(value) else math.nan for value in middle], color=look.colour,
            marker=look.marker, markeredgecolor="white", markeredgewidth=0.6, zorder=3,
        )  # fmt: skip
        low, high = zip(*(_quartiles(values) for values in found), strict=True)
        if len(places) > 1:
            axes.fill_between(places, low, high, color=look.colour, alpha=0.15, linewidth=0, zorder=2)
        else:
            axes.vlines(places, low, high, color=look.colour, alpha=0.3, linewidth=5, zorder=2)
        worst = [max(values) for values in found]
        axes.plot(
            places, [value if math.isfinite(value) else math.nan for value in worst], color=look.colour, **_WORST
        )
        _at_the_edge(axes, [at for at, value in zip(places, middle, strict=True) if value == math.inf], look)
        _at_the_edge(
            axes, [at for at, value in zip(places, worst, strict=True) if value == math.inf], look, worst=True
        )


def _quartiles(values: list[float]) -> tuple[float, float]:
    """Nearest values, so that infinite ones stay what they are; the band ends where it would have no upper edge."""
    low, high = numpy.quantile(values, [0.25, 0.75], method="nearest" if math.inf in values else "linear")
    return (float(low), float(high)) if math.isfinite(high) else (math.nan, math.nan)


def _at_the_edge(axes: Axes, places: list[float], look: style.Look, *, worst: bool = False) -> None:
    """Infinite values have no place on the axis: their marks sit on its upper edge, as the legend says."""
    form = _WORST | {"marker": INFINITE} if worst else {"marker": look.marker, "linestyle": "none", "zorder": 4}
    if places:
        axes.plot(
            places, [1.0] * len(places), color=look.colour, **form, clip_on=False,
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip


INFINITE = "^"
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


def _legend(sweeps: list[WinnerSweep], left_out: int) -> list[Line2D | Patch]:
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
    more: list[Line2D | Patch] = []
    infinite = sum(any(_regret(s, rule) == math.inf for rule, *_ in RULES) for s in sweeps)
    if infinite:
        label = f"infinite, at the upper edge: {infinite} × the best |C| alone is exact"
        more.append(Line2D([], [], color=style.GREY, label=label, **(_WORST | {"marker": INFINITE})))
    if left_out:
        more.append(Line2D([], [], linestyle="none", label=f"{left_out} × not drawn, no best |C| is known"))
    return [*rules, band, worst, *more]
