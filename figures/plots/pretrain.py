"""Loss of pre-training over the steps, several runs side by side, and the validation loss before and after.

wtacrs draw RESULT.json [RESULT.json …] OUT.png
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.lines import Line2D

from wtacrs.estimators import InputError
from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.pretrain import PretrainingResult
from wtacrs.validation.summaries.series import series


def draw(results: Sequence[PretrainingResult], path: str | Path) -> Path:
    """Write the figure as PNG and return its path; errors as in `build`."""
    return style.save(build(results), path)


def build(results: Sequence[PretrainingResult]) -> Sheet:
    """The figure as an object: a line per run, its training loss; circles at both ends, its validation loss.

    Runs of one estimator share its colour and differ in dashes.

    Raises:
        InputError: if there is no run, a run is of another kind, or none has a finite loss.
    """
    if not results:
        raise InputError("results is empty: the figure needs at least one pre-training result")
    for run in results:
        expect(run, PretrainingResult, "one of results")
    if not any(math.isfinite(point.train_loss) for run in results for point in run.history):
        raise style.NothingToDraw("no run has a finite training loss")
    looks = style.looks(run.estimator for run in results)
    seen: dict[str, int] = {}
    with style.figure(8.4, 4.2 + 0.2 * len(results)) as fig:
        (axes,) = fig.panels()
        handles = []
        for run in results:
            name = series(run.estimator)
            nth = seen[name] = seen.get(name, -1) + 1
            colour = looks[name].colour
            dash: Any = style.DASHES[nth % len(style.DASHES)]
            axes.plot(
                [p.step for p in run.history], [p.train_loss for p in run.history], color=colour, linestyle=dash
            )
            axes.plot(
                [0, run.steps], [run.valid_before, run.valid_after], "o", color=colour, markerfacecolor="white",
                markeredgewidth=1.4, zorder=3,
            )  # fmt: skip
            label = (
                f"{style.shorten(run.estimator, 60)}: validation {run.valid_before:.3f} → {run.valid_after:.3f}"
            )
            handles.append(Line2D([], [], color=colour, linestyle=dash, label=label))
        axes.set_xlabel("optimiser step")
        axes.set_ylabel("nats per target token")
        style.tag(axes, "training loss (line) and validation loss (circles)")
        first = results[0]
        fig.heading(f"Pre-training a {first.size} T5 of {first.parameters:,} parameters")
        fig.key(handles, ncols=1)
    return fig
