"""Estimated bias on captured layers, with intervals, beside the bias that would have been seen.

wtacrs draw layer_tests.json OUT.png
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from wtacrs.figures import style
from wtacrs.figures.contrast import legible
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.layer_tests import LayerTest, LayerTestResult
from wtacrs.validation.summaries.series import series

MAX_LAYERS = 40
# how far beyond the largest bias that would have been seen the axes reach
_ROOM = 1.3
_BAR: dict[str, Any] = {"marker": "|", "markersize": 7, "markeredgewidth": 1.5, "linestyle": "none"}
_UNDECIDED_DASH = (0, (2, 1.2))
_VERDICTS = {
    "holds": ("holds", "accepted"),
    "undecided": ("undecided",),
    "bias": ("broken", "biased, as declared"),
}


def draw(result: LayerTestResult, path: str | Path) -> Path:
    """Write the figure as PNG and return its path; arguments and errors as in `build`."""
    return style.save(build(result), path)


def build(result: LayerTestResult) -> Sheet:
    """The figure as an object: one line per layer, one mark per estimator on it, in two panels.

    Left: the estimated bias along G, relative to ‖G‖, with its interval at 1 − level of the result (normal, of each by
    itself). Right: the root of the estimated ‖bias‖², where that is positive, else 0, with its interval. Bars: the
    smallest bias of this kind that would have been seen with the power asked for. Dotted lines: the bias along G to rule
    out; where the bars lie between them it is. A mark is open where the mean holds, filled where there is a bias, and
    half filled with a dashed interval where it is undecided. What lies beyond the axes is an arrow at the edge with its
    number.

    Raises:
        InputError: if the result is of another kind or holds no test.
    """
    expect(result, LayerTestResult, "the argument result")
    if not result.tests:
        raise style.NothingToDraw("the result holds no test of a layer")
    layers = list(dict.fromkeys(test.layer for test in result.tests))
    shown = _evenly(layers)
    looks = style.looks(test.estimator for test in result.tests)
    kinds = list(dict.fromkeys((test.estimator, test.scores) for test in result.tests))
    names = style.short_names(shown, limit=34)
    height = 1.7 + len(shown) * max(0.2, 0.11 * len(kinds))
    with style.figure(9.2, height) as fig:
        left, right = fig.panels(1, 2, sharey=True)
        tests = [test for test in result.tests if test.layer in names]
        edges = _limits(left, right, tests, result.level)
        for test in tests:
            place = (kinds.index((test.estimator, test.scores)) + 0.5) / len(kinds) - 0.5
            y = shown.index(test.layer) + 0.7 * place
            _marks(left, right, test, y, looks[series(test.estimator)], result.level, edges)
        left.set_yticks(range(len(shown)), [names[layer] for layer in shown])
        left.set_ylim(len(shown) - 0.4, -0.6)
        left.axvline(0.0, color=style.GREY, linewidth=0.9, zorder=1)
        asked = _asked(tests)
        for bias in asked:
            for at in (-bias, bias):
                left.axvline(at, color=style.GREY, linewidth=0.9, linestyle=":", zorder=1)
        left.set_xlabel("bias along G / ‖G‖")
        right.set_xlabel("norm of the bias / ‖G‖")
        style.tag(left, f"along the exact product; intervals at {1 - result.level:.5g}")
        style.tag(right, "in any direction")
        fig.heading(_title(result, len(shown), len(layers)))
        handles = [*_legend(kinds, looks), *_explained(tests)]
        fig.key(handles, ncols=2)
    return fig


def _evenly(layers: list[str]) -> list[str]:
    if len(layers) <= MAX_LAYERS:
        return layers
    return [layers[round(i * (len(layers) - 1) / (MAX_LAYERS - 1))] for i in range(MAX_LAYERS)]


def _asked(tests: Sequence[LayerTest]) -> list[float]:
    """The biases to rule out by sampling."""
    return sorted({test.bias.asked for test in tests if test.bias.method == "sampling"})


def _limits(left: Axes, right: Axes, tests: Sequence[LayerTest], level: float) -> tuple[float, float]:
    """Axes as wide as what was sampled needs; without anything sampled, as wide as the exact biases."""
    reach = NormalDist().inv_cdf(1 - level / 2)
    wide = [max(reach * t.bias.along_error, _finite(t.bias.detectable_along)) for t in tests if t.bias.along_error]
    wide += _asked(tests)
    far = [t.bias.detectable for t in tests if t.bias.detectable and math.isfinite(t.bias.detectable)]
    along = _ROOM * max(wide, default=max(abs(t.bias.along) for t in tests) or 1e-12)
    norm = _ROOM * max(far, default=max(t.bias.bias for t in tests) or 1e-12)
    left.set_xlim(-along, along)
    right.set_xlim(0.0, norm)
    return along, norm


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else 0.0


def _marks(
    left: Axes, right: Axes, test: LayerTest, y: float, look: style.Look, level: float, edges: tuple[float, float]
) -> None:
    found, reach = test.bias, NormalDist().inv_cdf(1 - level / 2)
    mark = _face(found.verdict, look.colour) | {
        "marker": look.marker,
        "markersize": 4.6 if found.verdict != "undecided" else 6.0,
        "color": look.colour,
        "zorder": 3,
    }
    dash = _UNDECIDED_DASH if found.verdict == "undecided" else "-"
    if found.along_error is not None:
        half = reach * found.along_error
        left.plot(
            [found.along - half, found.along + half], [y, y], color=look.colour, linewidth=1.2, linestyle=dash
        )
    if found.bias_squared_error is not None:
        top = math.sqrt(max(found.bias_squared + reach * found.bias_squared_error, 0.0))
        low = math.sqrt(max(found.bias_squared - reach * found.bias_squared_error, 0.0))
        right.plot([low, top], [y, y], color=look.colour, linewidth=1.2, linestyle=dash)
    if found.detectable is not None and found.detectable_along is not None:
        right.plot([found.detectable], [y], color=look.colour, **_BAR)
        left.plot([-found.detectable_along, found.detectable_along], [y, y], color=look.colour, **_BAR)
    for axes, value, edge in ((left, found.along, edges[0]), (right, found.bias, edges[1])):
        if abs(value) <= edge:
            axes.plot([value], [y], linestyle="none", clip_on=False, **mark)
        else:
            _beyond(axes, value, y, edge, look.colour)


def _face(verdict: str, colour: str) -> dict[str, Any]:
    """Open where the mean holds, half filled where that is undecided, filled where there is a bias."""
    if verdict == "undecided":
        return {"fillstyle": "left", "markerfacecolor": colour, "markerfacecoloralt": "white"}
    return {"markerfacecolor": "white" if verdict in ("holds", "accepted") else colour}


def _beyond(axes: Axes, value: float, y: float, edge: float, colour: str) -> None:
    side = math.copysign(1.0, value)
    at = side * edge
    axes.plot([at], [y], marker=">" if side > 0 else "<", markersize=5, color=colour, clip_on=False, zorder=3)
    axes.annotate(
        f"{value:.2g}",
        (at, y),
        xytext=(-6 * side, 0),
        textcoords="offset points",
        ha="right" if side > 0 else "left",
        va="center",
        color=legible(colour),
        fontsize="x-small",
    )


def _title(result: LayerTestResult, shown: int, total: int) -> str:
    claims = [test for test in result.tests if test.unbiased]
    broken, undecided = (sum(t.bias.verdict == word for t in claims) for word in ("broken", "undecided"))
    which = f", {shown} of {total} layers shown" if shown < total else ""
    told = f"{broken} of {len(claims)} claims of no bias broken at {result.level:.2g}, {undecided} undecided"
    return f"Bias on captured layers: {told}{which}"


def _legend(kinds: Sequence[tuple[str, str]], looks: dict[str, style.Look]) -> list[Line2D]:
    several = len({scores for _, scores in kinds}) > 1
    handles = []
    for estimator, scores in kinds:
        look = looks[series(estimator)]
        label = style.shorten(estimator, 60) + (f", {scores}" if several else "")
        handles.append(
            Line2D(
                [], [], color=look.colour, marker=look.marker, markerfacecolor="white", label=label, linewidth=1.2
            )
        )
    return handles


def _explained(tests: Sequence[LayerTest]) -> list[Line2D]:
    """What marks, bars and lines say, of those that are there."""
    handles = []
    for label, verdicts in _VERDICTS.items():
        there = [test.bias.verdict for test in tests if test.bias.verdict in verdicts]
        if there:
            line = _UNDECIDED_DASH if label == "undecided" else "-"
            face = _face(there[0], style.INK) | {"marker": "o", "linestyle": line, "linewidth": 1.2}
            handles.append(Line2D([], [], color=style.INK, label=label, **face))
    powers = {f"{100 * test.bias.power:.4g} %" for test in tests if test.bias.detectable}
    if powers:
        label = f"would have been seen with {', '.join(sorted(powers))} power"
        handles.append(Line2D([], [], color=style.INK, label=label, **_BAR))
    asked = ", ".join(f"{100 * bias:.2g} %" for bias in _asked(tests))
    if asked:
        label = f"bias along G to rule out: {asked}"
        handles.append(Line2D([], [], color=style.GREY, linestyle=":", linewidth=0.9, label=label))
    return handles
