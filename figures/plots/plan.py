"""The front of a plan: time and noise of the best plans against the peak, with the stock step and the plan itself.

wtacrs draw plan.json OUT.png
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes

from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.plan import Plan

_COLOUR, _STOCK = "#0072b2", "#d55e00"


def draw(result: Plan, path: str | Path) -> Path:
    """Write the figure as PNG and return its path; errors as in `build`."""
    return style.save(build(result), path)


def build(result: Plan) -> Sheet:
    """The figure as an object: seconds of the step on the left, noise on the right, both against the peak.

    Raises:
        InputError: if the result is of another kind or holds no front.
    """
    expect(result, Plan, "the argument result")
    if not result.front:
        raise style.NothingToDraw("the plan holds no front")
    with style.figure(9.2, 3.8) as fig:
        left, right = fig.panels(1, 2)
        peaks = [point.peak / 1e6 for point in result.front]
        _panel(left, result, peaks, [p.seconds for p in result.front], result.seconds)
        _panel(right, result, peaks, [p.noise for p in result.front], result.noise)
        left.plot(result.stock_peak / 1e6, result.stock_seconds, "s", color=_STOCK, label="stock step")
        right.plot(result.stock_peak / 1e6, 0.0, "s", color=_STOCK)
        style.tag(left, "seconds of forward and backward pass")
        style.tag(right, "noise / the minibatch's variance")
        fig.heading(
            f"Best plans by memory: {style.shorten(result.model, 44)}, {result.batch_size} × {result.tokens} tokens, "
            f"{_under(result)}"
        )
        handles, labels = left.get_legend_handles_labels()
        fig.key(handles, labels, ncols=3)
    return fig


def _panel(axes: Axes, result: Plan, peaks: list[float], values: list[float], value: float) -> None:
    axes.plot(peaks, values, "o-", color=_COLOUR, drawstyle="steps-post", label="best plans")
    axes.plot(result.peak / 1e6, value, "D", color=style.INK, markersize=7, label="this plan")
    axes.axvline(result.memory / 1e6, color=style.GREY, linestyle=style.DASHES[1], linewidth=1.2)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("predicted peak, MB (10⁶ bytes); dashed: asked for")


def _under(result: Plan) -> str:
    if result.noise_ceiling is not None:
        return f"noise ≤ {result.noise_ceiling:g}"
    return f"time ≤ {result.time_ceiling:g} × stock"
