"""What is alive at the peak of simulated training steps, by kind.

wtacrs draw simulation.json OUT.png
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.patches import Patch

from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.simulation import PARTS, SimulatedStep, SimulationResult

_COLOURS = ("#0072b2", "#8a8a2b", "#999999", "#56b4e9", "#009e73", "#e69f00", "#cc79a7")


def draw(result: SimulationResult, path: str | Path) -> Path:
    """Write the figure as PNG and return its path; errors as in `build`."""
    return style.save(build(result), path)


def build(result: SimulationResult) -> Sheet:
    """The figure as an object: a bar per way to take the step, cut by what is alive at its peak.

    Raises:
        InputError: if the result is of another kind or holds no step.
    """
    expect(result, SimulationResult, "the argument result")
    if not result.steps:
        raise style.NothingToDraw("the result holds no training step")
    colours = dict(zip(PARTS, _COLOURS, strict=True))
    shown = [part for part in PARTS if any(step.parts[part] for step in result.steps)]
    with style.figure(9.2, 2.0 + 0.42 * len(result.steps)) as fig:
        (axes,) = fig.panels()
        for y, step in enumerate(result.steps):
            left = 0.0
            for part in shown:
                size = step.parts[part] / 1e9
                axes.barh(y, size, left=left, height=0.62, color=colours[part], edgecolor="white", linewidth=0.5)
                left += size
        axes.set_yticks(range(len(result.steps)), [_label(step) for step in result.steps])
        axes.set_ylim(len(result.steps) - 0.4, -0.6)
        axes.set_xlim(left=0.0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("GB (10⁹ bytes)")
        fig.heading(f"Alive at the peak of a step: {style.shorten(result.model, 44)}, simulated")
        handles = [Patch(color=colours[part], label=part) for part in shown]
        fig.key(handles, ncols=4)
    return fig


def _label(step: SimulatedStep) -> str:
    return f"{style.shorten(step.choice.name, 44)}, batch {step.batch_size}"
