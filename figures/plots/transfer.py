"""Variance of every estimator on one model against that on another, one panel per budget and kind of scores.

wtacrs draw transfer.json OUT.png [--files A --files B]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from wtacrs.estimators import InputError
from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.transfer import TransferPair, TransferResult
from wtacrs.validation.summaries.series import series

_KINDS = {"row-norms": "row-norm scores", "stale": "stale scores", "oracle": "oracle scores"}


def draw(result: TransferResult, path: str | Path, *, files: Sequence[str] | None = None) -> Path:
    """Write the figure as PNG and return its path; arguments and errors as in `build`."""
    return style.save(build(result, files=files), path)


def build(result: TransferResult, *, files: Sequence[str] | None = None) -> Sheet:
    """The figure as an object: a marker per estimator, log-log, with Kendall's τ and the regrets of both directions.

    Where the markers rise from left to right the order is kept; the best on either model has a ring.

    Args:
        result: of two or more files.
        files: names of the two to show; default the first two.

    Raises:
        InputError: if the result is of another kind, a file is unknown, or no variance is positive and finite.
    """
    expect(result, TransferResult, "the argument result")
    known = list(dict.fromkeys(s.file for s in result.standings))
    one, other = _two(known, files)
    places = _places(result, one, other)
    if not places:
        raise style.NothingToDraw("no estimator has a positive, finite variance on both files")
    kinds = [kind for kind in _KINDS if any(key[0] == kind for key in places)]
    budgets = sorted({key[1] for key in places})
    looks = style.looks(name for found in places.values() for name in found)
    lines, columns = len(kinds), len(budgets)
    names = [style.shorten(name, 62) for name in looks]
    legend_lines = math.ceil(len(names) / 2)
    with style.figure(max(3.3 * columns, 8.4), 2.9 * lines + 0.2 * legend_lines + 0.9) as fig:
        panels = fig.panels(lines, columns)
        for row, kind in enumerate(kinds):
            for axes, budget in zip(panels[row * columns :], budgets, strict=False):
                pairs = [p for p in result.pairs if (p.scores, p.budget) == (kind, budget)]
                _panel(axes, places.get((kind, budget), {}), looks, one, other, pairs)
                style.tag(axes, f"{_KINDS[kind]}, budget {budget:g}\n{_told(pairs, one, other)}")
            panels[row * columns].set_ylabel(f"on {style.shorten(other, 24)}")
        for axes in panels[-columns:]:
            axes.set_xlabel(f"on {style.shorten(one, 24)}")
        fig.heading(f"Var Ĝ / ‖G‖², median over layers: {_named(result, one)}, {_named(result, other)}")
        fig.key(_legend(looks), ncols=2)
    return fig


def _two(known: Sequence[str], files: Sequence[str] | None) -> tuple[str, str]:
    chosen = list(known[:2] if files is None else files)
    for name in chosen:
        if name not in known:
            raise InputError(f"files: {name!r} is not in the result; it has: {', '.join(known) or 'none'}")
    if len(set(chosen)) != 2:
        raise InputError(f"files: two that differ are shown, got {', '.join(chosen) or 'none'}")
    return chosen[0], chosen[1]


Places = dict[tuple[str, int | float], dict[str, tuple[float, float]]]


def _places(result: TransferResult, one: str, other: str) -> Places:
    """(scores, budget) → estimator → its variance on both files."""
    found: dict[tuple[str, int | float], dict[str, dict[str, float]]] = {}
    for s in result.standings:
        found.setdefault((s.scores, s.budget), {}).setdefault(series(s.estimator), {})[s.file] = s.variance
    places: Places = {}
    for key, estimators in found.items():
        for name, at in estimators.items():
            if one in at and other in at and all(0 < at[file] < math.inf for file in (one, other)):
                places.setdefault(key, {})[name] = (at[one], at[other])
    return places


def _panel(
    axes: Axes,
    places: dict[str, tuple[float, float]],
    looks: dict[str, style.Look],
    one: str,
    other: str,
    pairs: Sequence[TransferPair],
) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        _readable(axis)
    best = {p.best for p in pairs if {p.source, p.target} == {one, other}}
    for name, (x, y) in places.items():
        look = looks[name]
        if name in best:
            axes.plot([x], [y], marker="o", markersize=13, markerfacecolor="none", markeredgecolor=style.INK)
        axes.plot(
            [x], [y], marker=look.marker, color=look.colour, markersize=7, markeredgecolor="white",
            markeredgewidth=0.6, linestyle="none", zorder=3,
        )  # fmt: skip
        number = str(list(looks).index(name) + 1)
        axes.annotate(number, (x, y), xytext=(6, 4), textcoords="offset points", fontsize="x-small")
    axes.margins(0.12)


def _readable(axis: Axis) -> None:
    """Plain numbers, at 1, 2 and 5 of a decade where there are few of them."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    few = FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    axis.set_minor_formatter(
        FuncFormatter(lambda value, position: few(value, position) if _decades(axis) < 1.5 else "")
    )


def _decades(axis: Axis) -> float:
    low, high = axis.get_view_interval()
    return math.log10(high / low)


def _told(pairs: Sequence[TransferPair], one: str, other: str) -> str:
    there = next((p for p in pairs if (p.source, p.target) == (one, other)), None)
    back = next((p for p in pairs if (p.source, p.target) == (other, one)), None)
    if there is None or back is None:
        return ""
    tau = "–" if there.tau is None else f"{there.tau:+.2f}"
    a, b = (style.shorten(name, 13) for name in (one, other))
    return f"τ = {tau}, regret {a} → {b} {there.regret:.2f}×, {b} → {a} {back.regret:.2f}×"


def _named(result: TransferResult, file: str) -> str:
    model = result.models.get(file, file)
    return style.shorten(file if model == file else f"{file} ({model})", 44)


def _legend(looks: dict[str, style.Look]) -> list[Line2D]:
    handles = [
        Line2D(
            [], [], color=look.colour, marker=look.marker, linestyle="none", markeredgecolor="white",
            markeredgewidth=0.6, markersize=7, label=f"{number}  {style.shorten(name, 60)}",
        )
        for number, (name, look) in enumerate(looks.items(), start=1)
    ]  # fmt: skip
    ring = Line2D(
        [], [], marker="o", markersize=11, markerfacecolor="none", markeredgecolor=style.INK, linestyle="none",
        label="best on one of the two",
    )  # fmt: skip
    return [*handles, ring]
