"""Ways to take a training step: memory against time, coloured by the noise that they add to the gradient.

wtacrs draw front.json OUT.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from wtacrs.figures import style
from wtacrs.figures.dark import AS_IT_IS
from wtacrs.figures.plots.numbers import write_numbers
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.front import FrontResult, pareto

_PAGE = "white"
_UNKNOWN = style.GREY


def draw(result: FrontResult, path: str | Path) -> Path:
    """Write the figure as PNG and return its path; errors as in `build`."""
    return style.save(build(result), path)


def build(result: FrontResult) -> Sheet:
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
        (axes,) = fig.panels()
        colours = mpl.colormaps["viridis_r"]
        first = result.rows[0]
        places = [(row.kept / first.kept, row.ratio) for row in result.rows]
        faces = [
            _UNKNOWN if row.noise is None else colours(norm(row.noise)) if row.noise else None
            for row in result.rows
        ]
        for row, place, face in zip(result.rows, places, faces, strict=True):
            axes.scatter(
                *place, s=190, color=[_PAGE if face is None else face], edgecolor=style.INK, clip_on=False, zorder=3,
                linewidth=2.6 if row in best else 0.9, gid=AS_IT_IS if face is not None else None,
            )  # fmt: skip
        _axes(axes, [kept for kept, _ in places])
        write_numbers(axes, places, range(1, len(places) + 1), faces)
        fig.key(*style.numbered([row.way.name for row in result.rows]), ncols=2, side=True)
        mappable = mpl.cm.ScalarMappable(norm, colours)
        if noises:
            label = "added noise / minibatch's; hollow: exact, grey: not known"
            style.colorbar(fig, mappable, [axes], label)
        fig.heading(
            f"{style.shorten(result.model, 40)}, {result.layers} layers, {result.batch_size} × {result.tokens} tokens, "
            f"{first.way.precision}; thick ring: not beaten in memory, time and noise together"
        )
    return fig


def _axes(axes: Axes, kept: Sequence[float]) -> None:
    axes.axhline(1.0, color=style.GREY, linewidth=0.9, zorder=1)
    axes.axvline(1.0, color=style.GREY, linewidth=0.9, zorder=1)
    axes.set_xscale("log")
    axes.set_xlim(min(kept) / 1.15, max(kept) * 1.15)
    ticks = [
        tick
        for tick in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
        if min(kept) / 1.1 <= tick <= max(kept) * 1.1
    ]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("kept for the backward pass, of the first way")
    axes.set_ylabel("time of forward and backward pass, of the first way")
