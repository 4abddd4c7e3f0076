"""What a fine-tuning run saved and cost beside exact training, and whether it learnt anything, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from wtacrs.validation.records.training import StepCost, TrainingResult
from wtacrs.validation.records.units import megabytes


def cost_lines(run: TrainingResult) -> Iterator[str]:
    """Kept bytes, peak and time of a step beside exact ones, a line each; nothing without a baseline."""
    step, exact = run.step, run.baseline
    if step is None or exact is None:
        return
    kept = _beside(step.kept_bytes, exact.kept_bytes)
    if kept is not None:
        yield f"a step keeps {kept} of exact training's for its backward pass{_of_layers(run)}"
    peak = _beside(step.peak_bytes, exact.peak_bytes)
    if peak is not None:
        yield f"its peak (second step, gradients included, weights not) is {peak} of exact training's"
    yield _time(run, step, exact)
    if run.skipped:
        yield f"{run.skipped} steps had no update: a gradient was not finite in fp16"


def _of_layers(run: TrainingResult) -> str:
    if run.receipt is None or not run.receipt.inputs:
        return ""
    return f"; its {run.receipt.layers} linear layers {_beside(run.receipt.copies, run.receipt.inputs)} of their inputs'"


def _beside(size: int | None, exact: int | None) -> str | None:
    if size is None or not exact:
        return None
    return f"{megabytes(size)} of {megabytes(exact)} MB, {size / exact:.0%}"


def _time(run: TrainingResult, step: StepCost, exact: StepCost) -> str:
    ratios = run.time_ratios
    if not ratios:
        return "its time is not compared: the run has too few steps"
    spread = f"from {min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} pairs of steps"
    return (
        f"its forward and backward passes take {median(ratios):.2f} times as long as exact ones ({spread}; "
        f"{_milliseconds(step)} and {_milliseconds(exact)} ms)"
    )


def _milliseconds(cost: StepCost) -> str:
    return f"{1e3 * median(cost.seconds):.3g}"


def majority_warning(run: TrainingResult) -> str | None:
    """A sentence where the last score is within two standard errors of what one constant answer scores, or below.

    The standard error is that of an accuracy of `dev_size` answers; other metrics are compared as they are.
    """
    if math.isnan(run.majority):
        return None
    error = 0.0
    if run.metric == "accuracy":
        error = math.sqrt(run.majority * (1 - run.majority) / run.dev_size)
    if run.final > run.majority + 2 * error:
        return None
    return (
        f"the last dev {run.metric} is {run.final:.3f}, and always giving the most frequent answer scores "
        f"{run.majority:.3f}: the run has learnt nothing that {run.dev_size} dev examples show; more steps, another --lr "
        "or a look at the labels may help"
    )
