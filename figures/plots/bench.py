"""The front of variance, bytes and time: bytes kept against time, coloured by the error of one estimate.

wtacrs draw bench.json OUT.png
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from wtacrs.figures import style
from wtacrs.figures.dark import AS_IT_IS
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.bench import BenchResult
from wtacrs.validation.summaries.bench import BenchSummary, bench_summaries, not_beaten

_EXACT = "#ffffff"
_MARKERS = {"row-norms": "o", "oracle": "s", "stale": "D"}
_SIZES = {"row-norms": 190, "oracle": 120, "stale": 120}
_COLUMNS = 2
_NEAR = 0.05


def draw(result: BenchResult, path: Path) -> Path:
    """Write the figure as PNG and return its path; errors as in `build`."""
    return style.save(build(result), path)


def build(result: BenchResult) -> Figure:
    """The figure as an object: a panel per problem, numbered points, and the numbers explained beside them.

    Raises:
        InputError: if the result is of another kind or holds no row.
    """
    expect(result, BenchResult, "the argument result")
    if not result.rows:
        raise style.NothingToDraw("the result holds no estimator")
    found = bench_summaries(result.rows)
    groups = list(dict.fromkeys(summary.group for summary in found))
    names = list(dict.fromkeys((summary.estimator, summary.scores) for summary in found))
    errors = [summary.error for summary in found if summary.error > 0]
    norm = LogNorm(min(errors, default=1e-3) / 1.2, max(errors, default=1.0) * 1.2)
    columns = min(_COLUMNS, len(groups))
    lines = -(-len(groups) // columns)
    with style.figure(4.6 * columns + 3.6, max(4.2 * lines, 1.4 + 0.25 * len(names)) + 0.9) as fig:
        grid = fig.add_gridspec(lines, columns + 1, width_ratios=[1.0] * columns + [0.75])
        panels = [fig.add_subplot(grid[i // columns, i % columns]) for i in range(len(groups))]
        for axes, group in zip(panels, groups, strict=True):
            _panel(axes, [summary for summary in found if summary.group == group], names, norm)
        _legend(fig.add_subplot(grid[:, columns]), names)
        if errors:
            label = "variance (and squared bias) of one estimate, of ‖G‖²; white: exact"
            mappable = mpl.cm.ScalarMappable(norm, mpl.colormaps["viridis_r"])
            fig.colorbar(mappable, ax=panels, location="bottom", shrink=0.8, aspect=40, label=label)
        fig.suptitle(
            f"{result.precision}, {result.stamp.device}, {result.stamp.threads} threads, median of {result.rounds}; "
            "thick ring: not beaten in bytes, time and variance with the same scores",
            x=0.01,
            ha="left",
        )
    return fig


def _panel(axes: Axes, found: Sequence[BenchSummary], names: Sequence[tuple[str, str]], norm: LogNorm) -> None:
    best, colours = not_beaten(found), mpl.colormaps["viridis_r"]
    for summary in found:
        colour = colours(norm(summary.error)) if summary.error > 0 else _EXACT
        place = summary.kept, summary.ratio
        axes.errorbar(
            *place, yerr=[[summary.ratio - summary.low], [summary.high - summary.ratio]], color=style.GREY, linewidth=0.9
        )  # fmt: skip
        axes.scatter(
            *place, s=_SIZES[summary.scores], color=[colour], marker=_MARKERS[summary.scores], edgecolor=style.INK,
            linewidth=2.6 if summary in best else 0.9, zorder=3,
        )  # fmt: skip
    for together in _near(found):
        numbers = ", ".join(str(names.index((one.estimator, one.scores)) + 1) for one in together)
        last = together[-1]
        dark = last.error > 0 and norm(last.error) > 0.5
        inside: dict[str, Any] = {"ha": "center", "color": "white" if dark else style.INK}
        inside["gid"] = AS_IT_IS if last.error > 0 else None
        beside: dict[str, Any] = {
            "ha": "left",
            "color": style.INK,
            "xytext": (9, 0),
            "textcoords": "offset points",
        }
        axes.annotate(
            numbers, (last.kept, last.ratio), va="center", fontsize=7, zorder=4,
            **(inside if len(together) == 1 else beside),
        )  # fmt: skip
    axes.axhline(1.0, color=style.GREY, linewidth=0.9, zorder=1)
    axes.axvline(1.0, color=style.GREY, linewidth=0.9, zorder=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(mpl.ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        axis.set_minor_locator(mpl.ticker.NullLocator())
    axes.set_xlabel("bytes kept, of x in bf16")
    axes.set_ylabel("time of both verbs, of the exact product")
    count = f", {found[0].problems} of them" if found[0].problems > 1 else ""
    style.tag(axes, f"{found[0].group}{count}")


def _near(found: Sequence[BenchSummary]) -> list[list[BenchSummary]]:
    """Points that lie on each other, whose numbers stand beside them."""
    groups: list[list[BenchSummary]] = []
    for one in found:
        for group in groups:
            kept, ratio = (log10(a / b) for a, b in ((one.kept, group[0].kept), (one.ratio, group[0].ratio)))
            if abs(kept) < _NEAR and abs(ratio) < _NEAR:
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def _legend(axes: Axes, names: Sequence[tuple[str, str]]) -> None:
    axes.axis("off")
    for place, (estimator, scores) in enumerate(names):
        y = 1.0 - (place + 0.5) / len(names)
        told = style.shorten(estimator, 56) + ("" if scores == "row-norms" else f", {scores} scores")
        axes.text(0.0, y, f"{place + 1}", fontsize=7.5, ha="right", va="center", transform=axes.transAxes)
        axes.text(0.03, y, told, fontsize=7.5, va="center", transform=axes.transAxes)
