"""One picture per claim of the theory: what is true, and what only looks true with its counter-example.

python -m wtacrs.figures.theory RESULT.json FOLDER
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from wtacrs.estimators import InputError
from wtacrs.figures import command, style
from wtacrs.validation.results import Claim, Series, TheoryResult

# axes that are not linear; and claims whose problems have no order: points, no lines
_SCALES = {
    "wta-condition": ("log", "log"),
    "any-scores": ("linear", "log"),
    "price": ("linear", "log"),
    "priority": ("linear", "log"),
    "topk": ("log", "log"),
}
_CLOUDS = {"take-all", "without-replacement", "wta-condition"}
_MOST_MARKERS = 21


def draw(result: TheoryResult, folder: Path) -> list[Path]:
    """Write `theory_<name>.png` for every claim and return the paths; arguments and errors as in `build`.

    Raises:
        InputError: if `result` is of another kind or a file cannot be written.
    """
    command.expect(result, TheoryResult, "the argument result")
    return [style.save(build(claim), folder / f"theory_{claim.name}.png") for claim in result.claims]


def build(claim: Claim) -> Figure:
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
    looks = style.looks(s.estimator for s in claim.series if s.estimator is not None)
    with style.figure(7.4, 4.9) as fig:
        axes = fig.subplots()
        axes.set_xscale(scales[0])
        axes.set_yscale(scales[1])
        for position, series in enumerate(claim.series):
            _series(axes, claim, series, _form(claim, position, looks))
        axes.set_xlabel(claim.x_name)
        axes.set_ylabel(claim.y_name)
        style.tag(axes, textwrap.fill(claim.statement, 112))
        _plain_numbers(axes)
        fig.suptitle(f"{heading(claim)}: {claim.title}", x=0.01, ha="left", weight="bold")
        fig.legend(loc="outside lower center", ncols=min(4, len(claim.series)))
    return fig


def heading(claim: Claim) -> str:
    """What the title says of itself: true, false although it looks true, or not borne out by the numbers."""
    if not claim.holds:
        return "Not borne out"
    return "True" if claim.status == "true" else "Looks true, is false"


def _shown(series: Series, scales: tuple[str, str]) -> list[tuple[float, float]]:
    """The points that have a place on the axes."""
    low = [0.0 if scale == "log" else float("-inf") for scale in scales]
    return [
        (x, y)
        for x, y in zip(series.x, series.y, strict=True)
        if low[0] < x < float("inf") and low[1] < y < float("inf")
    ]


def _form(claim: Claim, position: int, looks: dict[str, style.Look]) -> dict[str, Any]:
    """Colour, marker and dash; series of one estimator differ in their dash, references are grey."""
    series = claim.series[position]
    if series.estimator is None:
        return {"color": style.GREY, "linestyle": style.DASHES[1], "linewidth": 1.3, "zorder": 1.5}
    name = style.series(series.estimator)
    nth = sum(s.estimator is not None and style.series(s.estimator) == name for s in claim.series[:position])
    form = {"color": looks[name].colour, "marker": looks[name].marker, "markeredgecolor": "white", "zorder": 3}
    return form | {"linestyle": style.DASHES[nth % len(style.DASHES)], "markeredgewidth": 0.5}


def _series(axes: Axes, claim: Claim, series: Series, form: dict[str, Any]) -> None:
    level = len(set(series.y)) == 1
    if level and len(series.y) > 1:
        axes.axhline(series.y[0], label=series.label, **{**form, "marker": "", "zorder": 1.6})
        return
    points = _shown(series, (axes.get_xscale(), axes.get_yscale()))
    x, y = zip(*points, strict=True) if points else ((), ())
    if claim.name in _CLOUDS and series.estimator is not None:
        form = {**form, "linestyle": "none", "alpha": 0.65}
    every = max(1, len(points) // _MOST_MARKERS)
    axes.plot(x, y, label=series.label, markevery=every if form["linestyle"] != "none" else None, **form)


def _plain_numbers(axes: Axes) -> None:
    """0.1, 1, 10 instead of powers where a log axis spans few decades."""
    for axis, scale, (low, high) in (
        (axes.xaxis, axes.get_xscale(), axes.get_xlim()),
        (axes.yaxis, axes.get_yscale(), axes.get_ylim()),
    ):
        if scale == "log" and high < 1e5 * low:
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            if high < 30 * low:
                axis.set_minor_formatter(
                    FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
                )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m wtacrs.figures.theory`."""
    parser = command.parser("theory", "Draw one picture per claim of a theory result.")
    parser.add_argument("result", type=Path, help="JSON file of a theory result")
    parser.add_argument("folder", type=Path, help="folder for the PNG files")
    given = parser.parse_args(arguments)
    return command.run(lambda: draw(command.load(given.result, TheoryResult), given.folder))


if __name__ == "__main__":
    sys.exit(main())
