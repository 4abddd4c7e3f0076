"""Norms of one layer's weight gradient over training: estimated, exact on the same step, and expected.

wtacrs draw gradient_norms.json OUT.png
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.norms import NormPoint, NormsResult
from wtacrs.validation.summaries.norms import running_median

MOST_POINTS = 120
"""With more steps than this the lines are running medians, and the steps themselves are faint dots."""


def draw(result: NormsResult, path: str | Path) -> Path:
    """Write the figure as PNG and return its path; arguments and errors as in `build`."""
    return style.save(build(result), path)


def build(result: NormsResult) -> Sheet:
    """The figure as an object: norms over steps on the left, relative to the exact gradient of the step on the right.

    Steps whose exact gradient is zero have no ratio and are left out on the right.

    Raises:
        InputError: if the result is of another kind or no norm is positive and finite.
    """
    expect(result, NormsResult, "the argument result")
    if not any(0 < p.used < math.inf for p in result.estimated):
        raise style.NothingToDraw("the result has no step with a positive, finite gradient norm to draw")
    colour = style.look(result.estimator).colour
    expected = "√(‖G‖² + Var)" if result.unbiased else "√E‖Ĝ‖²"
    used: dict[str, Any] = {"color": colour, "label": "‖Ĝ‖, what training used"}
    theory: dict[str, Any] = {
        "color": "#d55e00",
        "linestyle": style.DASHES[1],
        "label": f"{expected}, closed form",
    }
    exact: dict[str, Any] = {"color": style.INK, "label": "‖G‖, exact dYᵀX of the same step"}
    beside: dict[str, Any] = {
        "color": style.GREY,
        "linestyle": style.DASHES[2],
        "label": "‖G‖ of the run that is exact throughout",
    }
    points = result.estimated
    with style.figure(9.4, 4.5) as fig:
        norms, ratios = fig.panels(1, 2)
        _curve(norms, points, [p.used for p in points], used)
        _curve(norms, result.exact, [p.exact for p in result.exact], beside)
        _curve(norms, points, [p.exact for p in points], exact)
        moving = [p for p in points if p.exact > 0]
        _curve(ratios, moving, [p.used / p.exact for p in moving], used)
        known, placed = ([p for p in each if p.expected is not None] for each in (points, moving))
        if known:
            _curve(norms, known, [p.expected or 0.0 for p in known], theory)
            _curve(ratios, placed, [(p.expected or 0.0) / p.exact for p in placed], theory)
        ratios.axhline(1.0, color=style.INK, linewidth=1.2, zorder=1.5)
        norms.set_yscale("log")
        style.tag(norms, "norm of dW, before clipping")
        style.tag(ratios, "relative to ‖G‖ of the same step")
        for axes in (norms, ratios):
            axes.set_xlabel("optimiser step")
        fig.heading(_title(result))
        handles, labels = norms.get_legend_handles_labels()
        fig.key(handles, labels, ncols=2)
    return fig


def _curve(axes: Axes, points: Sequence[NormPoint], values: Sequence[float], form: dict[str, Any]) -> None:
    steps = [p.step for p in points]
    if len(points) <= MOST_POINTS:
        axes.plot(steps, values, **form, linewidth=1.3, zorder=3)
        return
    axes.plot(steps, values, ".", color=form["color"], markersize=3, alpha=0.35, markeredgewidth=0, zorder=2)
    axes.plot(steps, running_median(values, len(values) // 20), **form, linewidth=1.6, zorder=3)


def _title(result: NormsResult) -> str:
    smooth = " (lines: running medians)" if len(result.estimated) > MOST_POINTS else ""
    layer = style.shorten(next(iter(style.short_names([result.layer]).values())), 40)
    return f"{style.shorten(result.estimator, 50)} for the dW of {layer} on {result.task}{smooth}"
