"""One picture per claim of the theory: what is true, and what only looks true with its counter-example.

wtacrs draw theory.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from wtacrs.estimators import InputError
from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.theory import Claim, Series, TheoryResult
from wtacrs.validation.summaries.series import series as series_of

# axes that are not linear; and claims whose problems have no order: points, no lines
_SCALES = {
    "wta-condition": ("log", "log"),
    "any-scores": ("linear", "log"),
    "mask-hint": ("linear", "log"),
    "plain-floor": ("log", "log"),
    "oracle-ratio": ("linear", "log"),
    "priority": ("linear", "log"),
    "topk": ("log", "log"),
    "stored-factors": ("log", "log"),
    "independent-codes": ("log", "log"),
    "rounded-scores": ("log", "log"),
    "rounded-norm": ("log", "log"),
}
_CLOUDS = {"take-all", "without-replacement", "wta-condition", "mask-cost"}
_APART = {"without-replacement", "mask-cost"}
_MOST_MARKERS = 21


def draw(result: TheoryResult, folder: str | Path) -> list[Path]:
    """Write `theory_<name>.png` for every claim and return the paths; arguments and errors as in `build`.

    Raises:
        InputError: if `result` is of another kind or a file cannot be written.
    """
    expect(result, TheoryResult, "the argument result")
    return [style.save(build(claim), Path(folder) / f"theory_{claim.name}.png") for claim in result.claims]


def build(claim: Claim) -> Sheet:
    """The figure of one claim: its title with the verdict, its statement, and every series.

    Raises:
        NothingToDraw: if no series has a point that these axes can show.
    """
    if not isinstance(claim, Claim):
        raise InputError(f"claim must be one of the claims of a theory result, got {type(claim).__name__}")
    scales = _SCALES.get(claim.name, ("linear", "linear"))
    if not any(_shown(s, scales) for s in claim.series):
        raise style.NothingToDraw(
            f"claim {claim.name}: no point with finite coordinates on {' and '.join(scales)} axes"
        )
    panels = _panels(claim)
    forms = _forms(claim.series)
    with style.figure(8.4, 5.0) as fig:
        for axes, shown in zip(fig.panels(1, len(panels), sharey=True), panels, strict=True):
            axes.set_xscale(scales[0])
            axes.set_yscale(scales[1])
            for series in shown:
                _series(axes, series, forms[series.label], claim.name in _CLOUDS)
            _plain_numbers(axes)
        fig.axes[len(panels) // 2].set_xlabel(claim.x_name)
        fig.axes[0].set_ylabel(claim.y_name)
        fig.heading(f"{heading(claim)}: {claim.title}", _glued(claim.statement))
        handles = {
            label: h for axes in fig.axes for h, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        fig.key(list(handles.values()), list(handles), ncols=4)
    return fig


def heading(claim: Claim) -> str:
    """What the title says of itself: true, false although it looks true, or not borne out by the numbers."""
    if not claim.holds:
        return "Not borne out"
    return "True" if claim.status == "true" else "Looks true, is false"


def _glued(statement: str) -> str:
    """No line ends inside a formula."""
    for sign in ("−", "="):
        statement = statement.replace(f" {sign} ", f"\u00a0{sign}\u00a0")
    return statement


def _shown(series: Series, scales: tuple[str, str]) -> list[tuple[float, float]]:
    """The points that have a place on the axes."""
    low = [0.0 if scale == "log" else float("-inf") for scale in scales]
    return [
        (x, y)
        for x, y in zip(series.x, series.y, strict=True)
        if low[0] < x < float("inf") and low[1] < y < float("inf")
    ]


def _panels(claim: Claim) -> list[list[Series]]:
    """What is drawn together: clouds that would hide each other get a panel each, levels are drawn in all."""
    if claim.name not in _APART:
        return [list(claim.series)]
    clouds = [s for s in claim.series if not _is_level(s)]
    return [[*(s for s in claim.series if _is_level(s)), cloud] for cloud in clouds] or [list(claim.series)]


def _is_level(series: Series) -> bool:
    return len(series.y) > 1 and len(set(series.y)) == 1


def _forms(every: Sequence[Series]) -> dict[str, dict[str, Any]]:
    """Colour, marker and dash by label; series of one estimator differ in their dash, references are grey."""
    looks = style.looks(s.estimator for s in every if s.estimator is not None)
    seen: dict[str | None, int] = {}
    forms: dict[str, dict[str, Any]] = {}
    for series in every:
        name = None if series.estimator is None else series_of(series.estimator)
        nth = seen[name] = seen.get(name, -1) + 1
        if name is None:
            dash = style.DASHES[(nth + 1) % len(style.DASHES)]
            forms[series.label] = {"color": style.GREY, "linestyle": dash, "linewidth": 1.4, "zorder": 2}
            continue
        forms[series.label] = {
            "color": looks[name].colour,
            "marker": looks[name].marker,
            "markeredgecolor": "white",
            "markeredgewidth": 0.5,
            "linestyle": style.DASHES[nth % len(style.DASHES)],
            "zorder": 3,
        }
    return forms


def _series(axes: Axes, series: Series, form: dict[str, Any], cloud: bool) -> None:
    if _is_level(series):
        axes.axhline(series.y[0], label=series.label, **{**form, "marker": "", "zorder": 1.6})
        return
    points = _shown(series, (axes.get_xscale(), axes.get_yscale()))
    x, y = zip(*points, strict=True) if points else ((), ())
    if cloud and series.estimator is not None:
        axes.plot(x, y, label=series.label, **{**form, "linestyle": "none", "alpha": 0.65})
    else:
        axes.plot(x, y, label=series.label, markevery=max(1, len(points) // _MOST_MARKERS), **form)


def _plain_numbers(axes: Axes) -> None:
    """0.1, 1, 10 instead of powers where a log axis spans few decades."""
    for axis, scale, (low, high) in (
        (axes.xaxis, axes.get_xscale(), axes.get_xlim()),
        (axes.yaxis, axes.get_yscale(), axes.get_ylim()),
    ):
        if scale == "log" and high < 1e8 * low:
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            if high < 30 * low:
                axis.set_minor_formatter(
                    FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
                )
