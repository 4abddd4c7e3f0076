"""Dev metric and training loss of several runs of one task, side by side.

wtacrs draw RESULT.json [RESULT.json …] OUT.png [--against seconds]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from wtacrs.estimators import InputError
from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.training import TrainingPoint, TrainingResult
from wtacrs.validation.summaries.series import series

Clock = Literal["step", "seconds"]
X_LABELS = {"step": "optimiser step", "seconds": "seconds of training"}


def draw(results: Sequence[TrainingResult], path: str | Path, *, against: Clock = "step") -> Path:
    """Write the figure as PNG and return its path; arguments and errors as in `build`."""
    return style.save(build(results, against=against), path)


def build(results: Sequence[TrainingResult], *, against: Clock = "step") -> Sheet:
    """The figure as an object: dev metric with the majority baseline on the left, training loss on the right.

    Runs of one estimator share its colour and differ in dashes; where a spec occurs more than once its label
    names the seed.

    Args:
        results: runs of one task, model and metric.
        against: "step" (optimiser steps) or "seconds" (of training, evaluation left out).

    Raises:
        InputError: if there is no run, a run is of another kind, has no history or lacks its metric, or the
            runs are of more than one task, model or metric.
    """
    if against not in X_LABELS:
        raise InputError(f'against={against!r} must be "step" or "seconds"')
    _check(results)
    with style.figure(9.2, 3.9 + 0.2 * len(results)) as fig:
        dev, loss = fig.panels(1, 2)
        handles = [_run(dev, loss, run, form, against) for run, form in zip(results, _forms(results), strict=True)]
        first = results[0]
        dashed: dict[str, Any] = {"color": style.GREY, "linestyle": (0, (4, 3)), "linewidth": 1.2}
        for value in dict.fromkeys(r.majority for r in results):
            dev.axhline(value, **dashed, zorder=1.5)
        majority = ", ".join(f"{value:.3f}" for value in dict.fromkeys(r.majority for r in results))
        handles.append(Line2D([], [], **dashed, label=f"majority class: {majority}"))
        style.tag(dev, f"dev {first.metric}")
        style.tag(loss, "training loss (mean since the last evaluation)")
        for axes in (dev, loss):
            axes.set_xlabel(X_LABELS[against])
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        fig.heading(_title(results))
        fig.key(handles, ncols=1 if _long(handles) else 2)
    return fig


def _check(results: Sequence[TrainingResult]) -> None:
    if not results:
        raise InputError("results is empty: training curves need at least one training result")
    for run in results:
        expect(run, TrainingResult, "one of results")
        if not run.history:
            raise style.NothingToDraw(f"training of {run.method}: history is empty, there is nothing to draw")
        for point in run.history:
            if run.metric not in point.dev:
                raise InputError(
                    f"training of {run.method}: step {point.step} has no dev metric {run.metric!r}, "
                    f"only {', '.join(point.dev) or 'none'}"
                )
    for field in ("task", "model", "metric"):
        values = list(dict.fromkeys(getattr(run, field) for run in results))
        if len(values) > 1:
            raise InputError(f"training curves show one {field}, got {', '.join(values)}: draw them apart")


def _forms(results: Sequence[TrainingResult]) -> list[dict[str, Any]]:
    """Colour, marker, dash and label of every run."""
    looks = style.looks(run.method for run in results)
    specs = [run.method for run in results]
    seen: dict[str, int] = {}
    forms = []
    for run in results:
        name = series(run.method)
        nth = seen[name] = seen.get(name, -1) + 1
        seed = f", seed {run.stamp.seed}" if specs.count(run.method) > 1 else ""
        forms.append({
            "color": looks[name].colour,
            "marker": looks[name].marker,
            "markersize": 4.8,
            "linestyle": style.DASHES[nth % len(style.DASHES)],
            "label": f"{style.shorten(run.method, 80)}{seed}: final {run.final:.3f}",
        })  # fmt: skip
    return forms


def _run(dev: Axes, loss: Axes, run: TrainingResult, form: dict[str, Any], against: Clock) -> Line2D:
    edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.6}
    every = max(1, len(run.history) // 12)

    def curve(axes: Axes, points: Sequence[TrainingPoint], values: list[float]) -> None:
        axes.plot([getattr(p, against) for p in points], values, **form, **edge, markevery=every, zorder=3)

    curve(dev, run.history, [p.dev[run.metric] for p in run.history])
    trained = [p for p in run.history if p.train_loss is not None]
    curve(loss, trained, [p.train_loss if p.train_loss is not None else math.nan for p in trained])
    return Line2D([], [], **form, **edge)


def _long(handles: list[Line2D]) -> bool:
    return any(len(str(handle.get_label())) > 55 for handle in handles)


def _title(results: Sequence[TrainingResult]) -> str:
    first = results[0]
    return (
        f"Fine-tuning {style.shorten(first.model, 40)} on {first.task}: "
        f"{first.train_size:,} training and {first.dev_size:,} dev examples"
    )
