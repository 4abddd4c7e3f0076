"""Mean squared error of the estimators against their budget, the bytes they store, or their multiply–accumulates (MACs).

wtacrs draw comparison.json OUT.png [--against budget | bytes | macs]
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from wtacrs.estimators import InputError
from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.compare import ComparisonResult
from wtacrs.validation.summaries.compare import LayerMedian, layer_medians

Axis = Literal["budget", "bytes", "macs"]
SCORES = {
    "row-norms": "row-norm scores: ‖xᵢ‖",
    "stale": "stale scores: ‖xᵢ‖‖yᵢ‖ of an earlier state",
    "oracle": "oracle scores: ‖xᵢ‖‖yᵢ‖",
}
X_LABELS: dict[Axis, str] = {
    "budget": "budget: rows kept / rows",
    "bytes": "bytes stored / bytes of the exact activation",
    "macs": "MACs / those of the exact product (dotted: 1)",
}


def draw(result: ComparisonResult, path: str | Path, *, against: Axis | None = None) -> Path:
    """Write the figure as PNG and return its path; arguments and errors as in `build`."""
    return style.save(build(result, against=against), path)


def build(result: ComparisonResult, *, against: Axis | None = None) -> Sheet:
    """The figure as an object: a row per kind of scores, a column per x axis, one line per estimator, log-log.

    A line is the median over layers of E‖Ĝ − G‖² / ‖G‖² = variance + bias², its band the middle half of the
    layers, an error bar two standard errors of Monte Carlo either way; a dashed line is mostly bias². An
    estimator without a budget is a level line against the budget. What is exactly zero has no place on a log
    axis and is named in the legend, as is an estimator that does not state its MACs.

    Args:
        result: the comparison.
        against: "budget" (fraction of rows kept), "bytes" (fraction of the exact activation's bytes) or
            "macs" (fraction of the exact product's) alone; default every one that has something to show.

    Raises:
        InputError: if the result is of another kind or no error in it is positive and finite.
    """
    expect(result, ComparisonResult, "the argument result")
    if against is not None and against not in X_LABELS:
        raise InputError(f"against={against!r} must be one of {', '.join(X_LABELS)}")
    found = layer_medians(result.rows)
    shown = {axis: _shown(found, axis) for axis in (X_LABELS if against is None else (against,))}
    shown = {axis: medians for axis, medians in shown.items() if any(_drawable(e, axis) for e in medians)}
    if not shown:
        raise style.NothingToDraw("the comparison has no row with a positive, finite mean squared error to draw")
    every = [e for medians in shown.values() for e in medians]
    kinds = [kind for kind in SCORES if any(e.scores == kind for e in every)]
    looks = style.looks(e.series for e in every)
    with style.figure(3.4 * len(shown) + 1.6, 2.9 * len(kinds) + 1.4 + 0.1 * len(looks)) as fig:
        # each row has its own scale: errors by row norms span far less than the oracle's
        panels = fig.panels(len(kinds), len(shown), sharex="col", sharey="row")
        for place, axes in enumerate(panels):
            kind, axis = kinds[place // len(shown)], list(shown)[place % len(shown)]
            axes.set_xscale("log")
            axes.set_yscale("log")
            style.tag(axes, SCORES[kind])
            _panel(axes, [e for e in shown[axis] if e.scores == kind], looks, axis)
            _ticks(axes, shown[axis], axis)
            if axis == "macs":
                axes.axvline(1.0, color=style.GREY, linewidth=1.0, linestyle=style.DASHES[2], zorder=1)
            axes.set_xlabel(X_LABELS[axis])
        for axes in panels:
            axes.set_ylabel("E‖Ĝ − G‖² / ‖G‖²  (variance + bias²)")
        fig.heading(_title(every, list(shown)))
        fig.key(_legend(shown, looks), ncols=len(shown) + 1)
    return fig


def _shown(medians: list[LayerMedian], against: Axis) -> list[LayerMedian]:
    """Against bytes what was fitted to the bytes, if there is any; otherwise what was asked for by rows."""
    fitted = [e for e in medians if e.share is not None]
    return fitted if against == "bytes" and fitted else [e for e in medians if e.share is None]


def _x(entry: LayerMedian, against: Axis) -> float | None:
    if against == "macs":
        return entry.mac_fraction
    return entry.byte_fraction if against == "bytes" else entry.row_fraction


def _drawable(entry: LayerMedian, against: Axis) -> bool:
    x = _x(entry, against)
    return 0 < entry.mse < math.inf and (against == "budget" if x is None else 0 < x < math.inf)


def _panel(axes: Axes, entries: list[LayerMedian], looks: dict[str, style.Look], against: Axis) -> None:
    for name in dict.fromkeys(e.series for e in entries):
        mine = sorted(
            (e for e in entries if e.series == name and _drawable(e, against)), key=lambda e: _x(e, against) or 0
        )
        placed = [e for e in mine if _x(e, against) is not None]
        for level in (e for e in mine if _x(e, against) is None):
            axes.axhline(level.mse, color=looks[name].colour, linewidth=1.3, linestyle=style.DASHES[3])
        if placed:
            # large to small, so that markers on one spot and lines that coincide all stay visible
            place = list(looks).index(name)
            size, width = max(8.0 - 0.6 * place, 5.0), max(3.6 - 0.6 * place, 1.2)
            _line(axes, placed, [_x(e, against) or 0.0 for e in placed], looks[name], size, width)


def _line(
    axes: Axes, entries: list[LayerMedian], x: list[float], look: style.Look, size: float, width: float
) -> None:
    dash = style.DASHES[1] if _mostly_bias(entries) else "-"
    middle = [e.mse for e in entries]
    axes.plot(
        x, middle, color=look.colour, marker=look.marker, markersize=size, linestyle=dash, linewidth=width,
        markeredgecolor="white", markeredgewidth=0.6, zorder=3,
    )  # fmt: skip
    low, high = [e.low for e in entries], [e.high for e in entries]
    if len(x) > 1:
        axes.fill_between(x, low, high, color=look.colour, alpha=0.06, linewidth=0, zorder=2)
        for edge in (low, high):  # fills of many bands merge to grey: their edges tell whose they are
            axes.plot(x, edge, color=look.colour, linewidth=0.6, alpha=0.7, zorder=2)
    else:
        axes.vlines(x, low, high, color=look.colour, alpha=0.3, linewidth=5, zorder=2)
    errors = [(at, e.mse, 2 * e.error) for at, e in zip(x, entries, strict=True) if e.error is not None]
    if errors:
        at, centre, half = zip(*errors, strict=True)
        axes.errorbar(at, centre, yerr=half, fmt="none", ecolor=look.colour, elinewidth=1.1, capsize=3, zorder=4)


def _mostly_bias(entries: list[LayerMedian]) -> bool:
    return any(e.mostly_bias for e in entries)


def _ticks(axes: Axes, entries: list[LayerMedian], against: Axis) -> None:
    """Budgets are few and chosen by people: name them; the other axes get decades with readable numbers."""
    budgets = sorted({x for e in entries if (x := _x(e, against)) is not None and _drawable(e, against)})
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if against == "budget" and 0 < len(budgets) <= 8:
        axes.set_xticks(budgets)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", which="minor", length=0)
    else:
        axes.xaxis.set_minor_formatter(
            FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "235" else "")
        )
    if len(budgets) == 1:
        axes.set_xlim(budgets[0] / 2, budgets[0] * 2)


def _title(entries: list[LayerMedian], axes: list[Axis]) -> str:
    counts = {e.layers for e in entries}
    number = f"{max(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    told = [{"budget": "budget", "bytes": "stored bytes", "macs": "MACs"}[axis] for axis in axes]
    what = " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)
    if max(counts) == 1:
        return f"Error of the weight gradient against {what} (one layer)"
    return f"Error of the weight gradient against {what} (median of {number} layers, band: their middle half)"


def _legend(shown: dict[Axis, list[LayerMedian]], looks: dict[str, style.Look]) -> list[Line2D]:
    handles = []
    for name, look in looks.items():
        placed = [(axis, e) for axis, medians in shown.items() for e in medians if e.series == name]
        drawn = [(axis, e) for axis, e in placed if _drawable(e, axis)]
        biased = any(e.mostly_bias for _, e in drawn)
        notes = ["mostly bias²"] if biased else []
        for axis, medians in shown.items():
            mine = [e for e in medians if e.series == name]
            left_out = [e for e in mine if not _drawable(e, axis)]
            notes += _undrawn(left_out, len(left_out) < len(mine), axis)
        note = f"  ({', '.join(dict.fromkeys(notes))})" if notes else ""
        dash: Any = style.DASHES[1] if biased else "-"
        if drawn and all(_x(e, axis) is None for axis, e in drawn):
            dash = style.DASHES[3]
        handles.append(
            Line2D(
                [], [], color=look.colour, marker=look.marker, markeredgecolor="white", markeredgewidth=0.6,
                linestyle=dash if drawn else "none", label=style.shorten(name, 60) + note,
            )
        )  # fmt: skip
    if any(e.error is not None for medians in shown.values() for e in medians):
        handles.append(Line2D([], [], color=style.GREY, marker="|", linestyle="none", markersize=9,
                              label="± 2 standard errors (Monte Carlo)"))  # fmt: skip
    return handles


def _undrawn(entries: list[LayerMedian], some_drawn: bool, against: Axis) -> list[str]:
    notes = []
    for what, group in (
        ("error 0, not on a log axis", [e for e in entries if e.mse == 0]),
        ("not finite", [e for e in entries if not math.isfinite(e.mse)]),
        ("MACs not stated", [e for e in entries if against != "budget" and _x(e, against) is None]),
    ):
        budgets = dict.fromkeys(f"{e.budget:g}" for e in group if e.budget is not None)
        if group:
            notes.append(f"{what} at budget {', '.join(budgets)}" if some_drawn and budgets else what)
    return notes
