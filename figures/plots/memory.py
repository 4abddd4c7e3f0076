"""Bytes that one training step keeps for its backward pass, by type of layer, and the peak of the step.

wtacrs draw memory.json OUT.png
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.memory import MemoryResult

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8a2b")
_OTHERS = "other"


def draw(result: MemoryResult, path: str | Path) -> Path:
    """Write the figure as PNG and return its path; errors as in `build`."""
    return style.save(build(result), path)


def build(result: MemoryResult) -> Sheet:
    """The figure as an object: a bar per way to take the step, cut by what keeps the bytes; a tick at the peak.

    Types of layers beyond the seven that keep most in any of the steps are one piece, "other".

    Raises:
        InputError: if the result is of another kind or holds no step.
    """
    expect(result, MemoryResult, "the argument result")
    if not result.steps:
        raise style.NothingToDraw("the result holds no training step")
    colours = _colours(result)
    with style.figure(9.2, 1.9 + 0.42 * len(result.steps)) as fig:
        (axes,) = fig.panels()
        for y, step in enumerate(result.steps):
            left = 0.0
            for name, size in _pieces(result, y, list(colours)).items():
                axes.barh(y, size, left=left, height=0.62, color=colours[name], edgecolor="white", linewidth=0.5)
                left += size
            axes.plot([step.peak / 1e6] * 2, [y - 0.4, y + 0.4], color=style.INK, linewidth=2.2)
        _axes(axes, [style.shorten(step.name, 48) for step in result.steps])
        fig.heading(
            f"Kept for the backward pass: {style.shorten(result.model, 44)}, "
            f"{result.batch_size} × {result.tokens} tokens, {result.precision}"
        )
        handles: list[Patch | Line2D] = [Patch(color=colour, label=name) for name, colour in colours.items()]
        handles.append(Line2D([], [], color=style.INK, linewidth=2.2, label="peak of the step, with gradients"))
        fig.key(handles, ncols=3)
    return fig


def _axes(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(left=0.0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("MB (10⁶ bytes), beyond parameters, buffers and the batch")


def _colours(result: MemoryResult) -> dict[str, str]:
    largest: dict[str, int] = {}
    for entry in (entry for step in result.steps for entry in step.saved):
        largest[entry.name] = max(entry.bytes, largest.get(entry.name, 0))
    names = sorted(largest, key=lambda name: -largest[name])
    shown = names[: len(_COLOURS)]
    colours = dict(zip(shown, _COLOURS, strict=False))
    return colours if len(shown) == len(names) else {**colours, _OTHERS: style.GREY}


def _pieces(result: MemoryResult, place: int, names: list[str]) -> dict[str, float]:
    """Megabytes by name, in the order of the legend."""
    found = dict.fromkeys(names, 0.0)
    for entry in result.steps[place].saved:
        found[entry.name if entry.name in found else _OTHERS] += entry.bytes / 1e6
    return {name: size for name, size in found.items() if size > 0}
