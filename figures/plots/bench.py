"""The front of variance, bytes and time: bytes kept against time, coloured by the error of one estimate.

wtacrs draw bench.json OUT.png
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
from wtacrs.validation.records.bench import BenchResult
from wtacrs.validation.summaries.bench import BenchSummary, bench_summaries, not_beaten

_PAGE = "white"
_MARKERS = {"row-norms": "o", "oracle": "s", "stale": "D"}
_SIZES = {"row-norms": 190, "oracle": 120, "stale": 120}
_COLUMNS = 2


def draw(result: BenchResult, path: str | Path) -> Path:
    """Write the figure as PNG and return its path; errors as in `build`."""
    return style.save(build(result), path)


def build(result: BenchResult) -> Sheet:
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
        panels = fig.panels(lines, columns, count=len(groups))
        for axes, group in zip(panels, groups, strict=True):
            _panel(axes, [summary for summary in found if summary.group == group], names, norm)
        fig.key(*style.numbered([_told(*name) for name in names]), ncols=2, side=True)
        if errors:
            label = "variance (and squared bias) of one estimate, of ‖G‖²; hollow: exact"
            mappable = mpl.cm.ScalarMappable(norm, mpl.colormaps["viridis_r"])
            style.colorbar(fig, mappable, panels, label)
        fig.heading(
            f"{result.precision}, {result.stamp.device}, {result.stamp.threads} threads, median of {result.rounds}; "
            "thick ring: not beaten in bytes, time and variance with the same scores"
        )
    return fig


def _panel(axes: Axes, found: Sequence[BenchSummary], names: Sequence[tuple[str, str]], norm: LogNorm) -> None:
    best, colours = not_beaten(found), mpl.colormaps["viridis_r"]
    for summary in found:
        colour = colours(norm(summary.error)) if summary.error > 0 else _PAGE
        place = summary.kept, summary.ratio
        axes.errorbar(
            *place, yerr=[[summary.ratio - summary.low], [summary.high - summary.ratio]], color=style.GREY, linewidth=0.9
        )  # fmt: skip
        axes.scatter(
            *place, s=_SIZES[summary.scores], color=[colour], marker=_MARKERS[summary.scores], edgecolor=style.INK,
            linewidth=2.6 if summary in best else 0.9, zorder=3, clip_on=False,
            gid=AS_IT_IS if summary.error > 0 else None,
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
    write_numbers(
        axes,
        [(summary.kept, summary.ratio) for summary in found],
        [names.index((summary.estimator, summary.scores)) + 1 for summary in found],
        [colours(norm(summary.error)) if summary.error > 0 else None for summary in found],
    )


def _told(estimator: str, scores: str) -> str:
    return style.shorten(estimator, 56) + ("" if scores == "row-norms" else f", {scores} scores")
