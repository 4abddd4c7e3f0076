"""The price of not knowing dY: variance with the scores at hand over that with the oracle's, layer by layer.

python -m wtacrs.figures.plots.oracle_ratio RESULT.json OUT.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from wtacrs.figures import command, style
from wtacrs.validation.layers.summary import OracleRatio, oracle_ratios
from wtacrs.validation.records.compare import ComparisonResult

_TITLES = {"row-norms": "row norms ‖xᵢ‖", "stale": "stale scores: ‖xᵢ‖ · earlier ‖yᵢ‖"}


def draw(result: ComparisonResult, path: Path) -> Path:
    """Write the figure as PNG and return its path; errors as in `build`."""
    return style.save(build(result), path)


def build(result: ComparisonResult) -> Figure:
    """The figure as an object: one panel per kind of scores; a dot per layer, a line through the medians.

    Raises:
        NothingToDraw: if no estimator was compared at a budget under the oracle's scores and others.
    """
    command.expect(result, ComparisonResult, "the argument result")
    prices = [p for p in oracle_ratios(result.rows) if p.budget is not None and p.prices]
    if not prices:
        raise style.NothingToDraw("no estimator at a budget has both the oracle's scores and others")
    kinds = [kind for kind in _TITLES if any(p.scores == kind for p in prices)]
    looks = style.looks(p.series for p in prices)
    budgets = sorted({p.budget for p in prices if p.budget is not None})
    with style.figure(4.6 * len(kinds) + 0.8, 4.6) as fig:
        panels = fig.subplots(1, len(kinds), sharex=True, sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=True):
            axes.set_yscale("log")
            style.tag(axes, _TITLES[kind])
            for place, name in enumerate(looks):
                mine = [p for p in prices if p.scores == kind and p.series == name]
                _line(axes, mine, budgets, looks[name], (place - (len(looks) - 1) / 2) * 0.4 / len(looks))
            axes.axhline(1.0, color=style.GREY, linewidth=1.0, linestyle=style.DASHES[2], zorder=1)
            axes.set_xticks(range(len(budgets)), [f"{b:g}" for b in budgets])
            axes.set_xlabel("budget")
        panels[0].set_ylabel("variance / variance with the oracle's scores")
        fig.suptitle("The price of not knowing dY (a dot is a layer, the line its median)", x=0.01, ha="left")
        handles = [
            Line2D([], [], color=look.colour, marker=look.marker, label=style.shorten(name, 50))
            for name, look in looks.items()
        ]
        fig.legend(handles=handles, loc="outside lower center", ncols=2)
    return fig


def _line(
    axes: Axes, prices: Sequence[OracleRatio], budgets: Sequence[float], look: style.Look, shift: float
) -> None:
    placed = sorted((budgets.index(p.budget) + shift, p.prices) for p in prices if p.budget is not None)
    for x, values in placed:
        axes.plot([x] * len(values), values, ".", color=look.colour, alpha=0.35, markersize=4, zorder=2)
    axes.plot(
        [x for x, _ in placed], [median(values) for _, values in placed], color=look.colour, marker=look.marker,
        markeredgecolor="white", markeredgewidth=0.6, zorder=3,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m wtacrs.figures.plots.oracle_ratio`."""
    parser = command.parser("oracle_ratio", "Draw the price of not knowing dY from a comparison result.")
    parser.add_argument("result", type=Path, help="JSON file of a comparison")
    parser.add_argument("out", type=Path, help="PNG file to write")
    given = parser.parse_args(arguments)
    return command.run(lambda: draw(command.load(given.result, ComparisonResult), given.out))


if __name__ == "__main__":
    sys.exit(main())
