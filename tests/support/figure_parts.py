"""What tests of pictures look for in them."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def visible(fig: Figure) -> list[Axes]:
    return [axes for axes in fig.axes if axes.get_visible()]


def legend(fig: Figure) -> list[str]:
    return [text.get_text() for text in fig.legends[0].get_texts()]


def points(axes: Axes, colour: str, marker: str) -> set[tuple[float, float]]:
    """Where the lines of that colour and marker have their vertices."""
    lines = [line for line in axes.get_lines() if (line.get_color(), line.get_marker()) == (colour, marker)]
    return {(float(x), float(y)) for line in lines for x, y in line.get_xydata()}
