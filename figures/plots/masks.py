"""Architectures under right and wrong masks: what a score of 0 for padding would give, and which masks stay in use.

wtacrs draw masks.json OUT.png
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from wtacrs.figures import style
from wtacrs.figures.contrast import ink_on
from wtacrs.figures.dark import AS_IT_IS
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.masks import CONDITIONS, SIDES, MaskRow, MasksResult

_CASES = [(condition, side) for condition in CONDITIONS for side in SIDES]
_MISSING = "#eeeeee"
_LONG = 5  # letters


def draw(result: MasksResult, path: str | Path) -> Path:
    """Write the figure as PNG and return its path; errors as in `build`."""
    return style.save(build(result), path)


def build(result: MasksResult) -> Sheet:
    """The figure as an object: two maps of architectures by masks.

    On the left, what the mean would be along the gradient, in the layer where it is least, if rows called padding were
    never drawn; on the right, layers that still use a mask after one step, of those in which one calls rows padding.

    Raises:
        InputError: if the result is of another kind or holds no row with numbers.
    """
    expect(result, MasksResult, "the argument result")
    if not result.ran:
        raise style.NothingToDraw("no architecture has a finite loss")
    names = result.architectures
    with style.figure(11.2, 2.1 + 0.235 * len(names)) as fig:
        left, right = fig.panels(1, 2, sharey=True)
        _map(fig, left, result, lambda row: row.score_zero_layer, _least, "cividis")
        left.set_title("if padding had score 0: least ⟨EĜ, G⟩/‖G‖² of a layer", loc="left", pad=34)
        _map(fig, right, result, _in_use, lambda row: f"{row.kept}/{row.masked}" if row.masked else "", "cividis")
        right.set_title("with a floor: layers that keep their mask after a step", loc="left", pad=34)
        fig.heading(
            f"{result.estimator}, floor {result.mask_floor:g}: the mean of every layer is exact to "
            f"{result.largest_bias:.1g} in every cell"
        )
    return fig


def _least(row: MaskRow) -> str:
    return f"{row.score_zero_layer:.2f}".replace("-0.00", "0.00").replace("-", "−")


def _in_use(row: MaskRow) -> float:
    return row.kept / row.masked if row.masked else math.nan


def _map(
    fig: Sheet,
    axes: Axes,
    result: MasksResult,
    value: Callable[[MaskRow], float],
    text: Callable[[MaskRow], str],
    colours: str,
) -> None:
    names = result.architectures
    grid: Any = np.full((len(names), len(_CASES)), math.nan)
    for row in result.ran:
        place = names.index(row.architecture), _CASES.index((row.condition, row.side))
        grid[place] = value(row)
        if not math.isnan(grid[place]):
            colour = ink_on(mpl.colormaps[colours](min(max(grid[place], 0.0), 1.0)))
            told = text(row)
            axes.text(
                place[1], place[0], told, ha="center", va="center", color=colour, gid=AS_IT_IS,
                fontsize="x-small" if len(told) <= _LONG else "xx-small",
            )  # fmt: skip
    axes.set_facecolor(_MISSING)
    image = axes.imshow(grid, aspect="auto", cmap=colours, vmin=0.0, vmax=1.0)
    style.colorbar(fig, image, [axes])
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(range(len(_CASES)), [side[0].upper() for _, side in _CASES])
    axes.grid(visible=False)
    axes.xaxis.tick_top()
    for column in range(2, len(_CASES), 2):
        axes.axvline(column - 0.5, color="white", linewidth=2.5)
    for column, condition in enumerate(CONDITIONS):
        axes.annotate(
            condition, (2 * column + 0.5, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 18),
            textcoords="offset points", ha="center", fontsize="small",
        )  # fmt: skip
