"""Ways to take a training step: memory against time, coloured by the noise that they add to the gradient.

wtacrs draw front.json OUT.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from wtacrs.figures import style
from wtacrs.figures.dark import AS_IT_IS
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.front import FrontResult, FrontRow, pareto

_EXACT = "#ffffff"
_UNKNOWN = style.GREY


def draw(result: FrontResult, path: Path) -> Path:
    """Write the figure as PNG and return its path; errors as in `build`."""
    return style.save(build(result), path)


def build(result: FrontResult) -> Figure:
    """The figure as an object: a numbered point per way, with the numbers explained beside it.

    Raises:
        InputError: if the result is of another kind or holds no row.
    """
    expect(result, FrontResult, "the argument result")
    if not result.rows:
        raise style.NothingToDraw("the result holds no way to take a step")
    best = pareto(result.rows)
    noises: list[float] = [row.noise for row in result.rows if row.noise]
    norm = LogNorm(min(noises, default=1e-3) / 1.2, max(noises, default=1.0) * 1.2)
    with style.figure(11.5, 1.6 + max(4.6, 0.27 * len(result.rows))) as fig:
        axes, legend = fig.subplots(1, 2, width_ratios=(1.5, 1.0))
        colours = mpl.colormaps["viridis_r"]
        first = result.rows[0]
        for number, row in enumerate(result.rows, start=1):
            colour = colours(norm(row.noise)) if row.noise else _UNKNOWN if row.noise is None else _EXACT
            ring = 2.6 if row in best else 0.9
            place = row.kept / first.kept, row.ratio
            axes.scatter(*place, s=190, color=[colour], edgecolor=style.INK, linewidth=ring, zorder=3)
            dark = bool(row.noise and norm(row.noise) > 0.5)
            axes.annotate(
                str(number), place, ha="center", va="center", fontsize=7, color="white" if dark else style.INK, zorder=4,
                gid=AS_IT_IS if row.noise else None,
            )  # fmt: skip
        _axes(axes)
        _legend(legend, result.rows)
        mappable = mpl.cm.ScalarMappable(norm, colours)
        if noises:
            label = "added noise / minibatch's; white: exact"
            fig.colorbar(mappable, ax=axes, location="bottom", shrink=0.7, aspect=40, label=label)
        fig.suptitle(
            f"{style.shorten(result.model, 40)}, {result.layers} layers, {result.batch_size} × {result.tokens} tokens, "
            f"{first.way.precision}; thick ring: not beaten in memory, time and noise together",
            x=0.01,
            ha="left",
        )
    return fig


def _axes(axes: Axes) -> None:
    axes.axhline(1.0, color=style.GREY, linewidth=0.9, zorder=1)
    axes.axvline(1.0, color=style.GREY, linewidth=0.9, zorder=1)
    axes.set_xscale("log")
    ticks = [0.05, 0.1, 0.2, 0.3, 0.5, 1.0]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("kept for the backward pass, of the first way")
    axes.set_ylabel("time of forward and backward pass, of the first way")


def _legend(axes: Axes, rows: Sequence[FrontRow]) -> None:
    axes.axis("off")
    for place, row in enumerate(rows):
        y = 1.0 - (place + 0.5) / len(rows)
        axes.text(0.0, y, f"{place + 1}", fontsize=7.5, ha="right", va="center", transform=axes.transAxes)
        axes.text(0.03, y, style.shorten(row.way.name, 74), fontsize=7.5, va="center", transform=axes.transAxes)
