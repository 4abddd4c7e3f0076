"""Variance of WTA-CRS against the number of winners |C| at one budget, one small panel per layer, choices marked.

wtacrs draw sweep.json OUT.png [--budget 0.3] [--relative-to gradient]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from wtacrs.estimators import InputError
from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.patterns import check_patterns, checked_patterns, fits
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.sweep import SweepResult, WinnerSweep
from wtacrs.validation.summaries.sweep import budget_order, choice_variance

MAX_PANELS = 9
PAPER, OPTIMAL, CRS = "wta_crs", 'wta_crs(winners="optimal")', "crs"
# scores → (line style, label); the curve itself belongs to no single rule, so it is grey
CURVES: dict[str, tuple[Any, str]] = {
    "oracle": ("-", "oracle scores"),
    "stale": (style.DASHES[3], "stale scores"),
    "row-norms": (style.DASHES[1], "row-norm scores"),
}

Scale = Literal["crs", "gradient"]
Place = tuple[str, str]
"""Captured file and layer: what has a panel."""


def draw(
    result: SweepResult,
    path: str | Path,
    *,
    layers: Sequence[str] | None = None,
    budget: int | float | None = None,
    relative_to: Scale = "crs",
) -> Path:
    """Write the figure as PNG and return its path; arguments and errors as in `build`."""
    return style.save(build(result, layers=layers, budget=budget, relative_to=relative_to), path)


def build(
    result: SweepResult,
    *,
    layers: Sequence[str] | None = None,
    budget: int | float | None = None,
    relative_to: Scale = "crs",
) -> Sheet:
    """The figure as an object.

    Args:
        result: sweeps of any number of layers and files, with oracle scores, row-norm scores or both.
        layers: names or patterns of the layers to show, in this order; default up to nine, as many of each file,
            evenly spaced in the result's order.
        budget: the budget to show; default the middle one of the result's.
        relative_to: unit of the variance: that of plain CRS with the same scores and k ("crs", the default), or
            ‖G‖², the squared norm of the exact product ("gradient").

    Raises:
        InputError: if there is nothing to draw, a layer or the budget is unknown, or a choice lies outside its sweep.
    """
    expect(result, SweepResult, "the argument result")
    if relative_to not in ("crs", "gradient"):
        raise InputError(f'relative_to={relative_to!r} must be "crs" or "gradient"')
    at = _budget(result, budget)
    drawable = [
        s
        for s in result.sweeps
        if _check(s) and repr(s.budget) == repr(at) and (relative_to == "gradient" or 0 < s.crs < math.inf)
    ]
    chosen = _choose(list(dict.fromkeys(map(_place, drawable))), layers)
    shown = [s for s in drawable if _place(s) in chosen]
    columns = min(len(chosen), 3)
    lines = math.ceil(len(chosen) / columns)
    with style.figure(max(3.1 * columns, 5.6), 2.15 * lines + 1.25) as fig:
        panels = fig.panels(lines, columns, count=len(chosen), sharey=True)
        names = _names(chosen)
        logarithmic = _spans_a_decade(shown, relative_to)
        for axes, place in zip(panels, chosen, strict=True):
            axes.set_yscale("log" if logarithmic else "linear")
            _panel(axes, names[place], [s for s in shown if _place(s) == place], relative_to)
        for axes in panels[max(0, len(chosen) - columns) : len(chosen)]:
            axes.set_xlabel("|C|, rows kept with certainty")
        fig.supylabel(_y_label(shown, relative_to))
        fig.heading(_title(result, chosen, at))
        fig.key(_legend(shown, logarithmic), ncols=min(3, columns + 1))
    return fig


def _place(sweep: WinnerSweep) -> Place:
    return sweep.captures, sweep.layer


def _budget(result: SweepResult, wanted: int | float | None) -> int | float:
    """The budget to show: the one that is asked for, or the middle one."""
    known = sorted({repr(s.budget): s.budget for s in result.sweeps}.values(), key=budget_order)
    if not known:
        raise style.NothingToDraw("the sweep has no layer that could be drawn")
    if wanted is None:
        return known[len(known) // 2]
    if repr(wanted) not in map(repr, known):
        raise InputError(f"budget={wanted!r} is not in the sweep; it has: {', '.join(map(repr, known))}")
    return wanted


def _check(sweep: WinnerSweep) -> bool:
    for name in ("paper", "optimal", "best"):
        choice = getattr(sweep, name)
        if choice is not None and choice != sweep.k and choice not in sweep.winners:
            raise InputError(
                f"sweep of layer {sweep.layer!r}: {name}={choice} must be one of its numbers of winners, or k={sweep.k}"
            )
    return len(sweep.variance) > 0


def _choose(known: list[Place], wanted: Sequence[str] | None) -> list[Place]:
    if wanted is not None:
        names = list(dict.fromkeys(layer for _, layer in known))
        check_patterns(checked_patterns(wanted), names, what="layers of the sweep")
        matched = dict.fromkeys(name for pattern in wanted for name in names if fits(name, [pattern]))
        return [place for layer in matched for place in known if place[1] == layer]
    if not known:
        raise style.NothingToDraw(
            "the sweep has no layer that could be drawn (variance of CRS positive and finite)"
        )
    if len(known) <= MAX_PANELS:
        return known
    files = _spaced(list(dict.fromkeys(captures for captures, _ in known)), MAX_PANELS)
    each = MAX_PANELS // len(files)
    return [place for name in files for place in _spaced([p for p in known if p[0] == name], each)]


def _spaced(things: list[Any], most: int) -> list[Any]:
    """At most so many of them, evenly spaced, both ends among them; of one the middle."""
    if len(things) <= most:
        return things
    if most == 1:
        return [things[len(things) // 2]]
    return [things[round(i * (len(things) - 1) / (most - 1))] for i in range(most)]


def _names(places: list[Place]) -> dict[Place, str]:
    """Short names of layers, with the file above them where there are several."""
    layers = style.short_names(layer for _, layer in places)
    if len({captures for captures, _ in places}) == 1:
        return {place: layers[place[1]] for place in places}
    return {place: f"{style.shorten(place[0], 44)}\n{layers[place[1]]}" for place in places}


def _y_label(shown: list[WinnerSweep], relative_to: Scale) -> str:
    if all(s.products for s in shown):
        return "variance / variance of CRS" if relative_to == "crs" else "variance / ‖G‖²"
    return f"variance without ‖G_T‖² / {'the same of CRS' if relative_to == 'crs' else 'S Σ w²/s'}"


def _unit(sweep: WinnerSweep, relative_to: Scale) -> float:
    return sweep.crs if relative_to == "crs" else 1.0


def _spans_a_decade(sweeps: list[WinnerSweep], relative_to: Scale) -> bool:
    values = [v / _unit(s, relative_to) for s in sweeps for v in (*s.variance, s.crs) if 0 < v < math.inf]
    return bool(values) and max(values) > 10 * min(values)


def _panel(axes: Axes, name: str, sweeps: list[WinnerSweep], relative_to: Scale) -> None:
    sizes = dict.fromkeys(f"n = {s.n}, k = {s.k}" for s in sweeps)
    style.tag(axes, f"{name}\n{' | '.join(sizes)}")
    colour = style.look(CRS).colour
    for sweep in sweeps:
        unit = _unit(sweep, relative_to)
        dash = CURVES[sweep.scores][0]
        level = "-" if relative_to == "crs" else dash
        axes.axhline(sweep.crs / unit, color=colour, linewidth=1.3, linestyle=level, zorder=1.5)
        relative = [v / unit for v in sweep.variance]
        axes.plot(sweep.winners, relative, color="#6b6b6b", linestyle=dash, linewidth=1.4, zorder=2)
        for choice, mark in zip((sweep.best, sweep.paper, sweep.optimal), _marks(), strict=True):
            if choice is not None:
                _mark(axes, choice, choice_variance(sweep, choice) / unit, mark)
    axes.margins(x=0.03)
    axes.locator_params(axis="x", integer=True)


def _marks() -> tuple[dict[str, Any], ...]:
    """Looks of best, paper's and optimal choice, drawn large to small: coinciding marks all stay visible."""
    optimal, paper = style.look(OPTIMAL), style.look(PAPER)
    return (
        {"marker": "s", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": style.INK},
        {"marker": paper.marker, "markersize": 8.5, "color": paper.colour, "markeredgecolor": "white"},
        {"marker": optimal.marker, "markersize": 5.2, "color": optimal.colour, "markeredgecolor": "white"},
    )


def _mark(axes: Axes, winners: int, value: float, mark: dict[str, Any]) -> None:
    if axes.get_yscale() == "log" and value == 0:
        # zero has no place on a log axis: the mark sits on the lower edge, as the legend says
        axes.plot([winners], [0.0], **mark, clip_on=False, zorder=4, transform=axes.get_xaxis_transform())
    else:
        axes.plot([winners], [value], **mark, linestyle="none", zorder=4)


def _title(result: SweepResult, chosen: list[Place], budget: int | float) -> str:
    total = len({_place(s) for s in result.sweeps})
    which = f"{len(chosen)} of {total} layers" if len(chosen) < total else f"all {total} layers"
    which = "one layer" if total == 1 else which
    rows = f"{budget} rows" if isinstance(budget, int) else f"budget {budget:g}"
    return f"Variance of WTA-CRS against its number of winners |C| ({rows}; {which})"


def _legend(shown: list[WinnerSweep], logarithmic: bool) -> list[Line2D]:
    present = {s.scores for s in shown}
    curves = [
        Line2D([], [], color="#6b6b6b", linewidth=1.4, linestyle=dash, label=f"WTA-CRS, {label}")
        for scores, (dash, label) in CURVES.items()
        if scores in present
    ]
    crs = Line2D([], [], color=style.look(CRS).colour, linewidth=1.2, label="plain CRS, same scores and k")
    labels = ("true minimum", "paper's rule", "optimal rule")
    zero = logarithmic and any(
        choice_variance(s, c) == 0 for s in shown for c in (s.best, s.optimal, s.paper) if c is not None
    )
    suffix = " (variance 0: on the lower edge)" if zero else ""
    marks = [
        Line2D([], [], linestyle="none", **mark, label=label + (suffix if label == "true minimum" else ""))
        for mark, label in zip(_marks(), labels, strict=True)
        if label != labels[0] or any(s.best is not None for s in shown)
    ]
    return [*curves, crs, *marks]
