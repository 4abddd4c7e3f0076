"""Metrics by name, and what a generated text counts as.

`None` stands for a generated text that is no answer of the task. In classification it counts as wrong: with two
classes as the other one than the true class, with more as a class of its own. In regression it counts as
`UNREADABLE_NUMBER`, the middle of the scale.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from wtacrs.estimators.core.errors import InputError

SCALE = (0.0, 5.0)
"""The range of the numbers of a regression task (STS-B)."""

UNREADABLE_NUMBER = 2.5
"""What an unparsable number counts as: the middle of `SCALE`."""

_NO_CLASS = -1

Prediction = int | float | None


def score(
    metrics: Sequence[str], predictions: Sequence[Prediction], labels: Sequence[int | float]
) -> dict[str, float]:
    """Compute metrics of predictions against labels.

    Args:
        metrics: out of accuracy, f1 (of class 1, with two classes only), matthews, pearson, spearman.
        predictions: class indices or numbers; None for an unparsable answer (see the module's description).
        labels: the true class indices or numbers, as many.

    Returns:
        metric → value: accuracy and f1 in [0, 1], the others in [−1, 1]. A correlation with a constant side is 0.

    Raises:
        InputError: for an unknown metric, no values, lists of different lengths or f1 of more than two classes.
    """
    unknown = [metric for metric in metrics if metric not in _METRICS]
    if unknown:
        raise InputError(f"metrics={unknown[0]!r}: not one of {', '.join(_METRICS)}")
    if not labels or len(predictions) != len(labels):
        raise InputError(
            f"predictions, labels: {len(predictions)} and {len(labels)} values; as many of both are needed, from 1"
        )
    return {metric: _METRICS[metric](predictions, labels) for metric in metrics}


def parse_target(text: str, labels: tuple[str, ...] | None) -> Prediction:
    """Read a generated answer.

    With `labels`, the index of the label that the text spells exactly, outer spaces aside. With None
    (regression), the number if it lies in `SCALE`. None for everything else.
    """
    answer = text.strip()
    if labels is not None:
        return labels.index(answer) if answer in labels else None
    try:
        value = float(answer)
    except ValueError:
        return None
    return value if SCALE[0] <= value <= SCALE[1] else None


def _classes(predictions: Sequence[Prediction], labels: Sequence[int | float]) -> tuple[list[int], list[int]]:
    """Class indices, unparsable answers made wrong ones."""
    true = [int(label) for label in labels]
    binary = {*true, *(int(p) for p in predictions if p is not None)} <= {0, 1}
    given = [
        int(p) if p is not None else (1 - label if binary else _NO_CLASS)
        for p, label in zip(predictions, true, strict=True)
    ]
    return given, true


def _accuracy(predictions: Sequence[Prediction], labels: Sequence[int | float]) -> float:
    given, true = _classes(predictions, labels)
    return sum(p == t for p, t in zip(given, true, strict=True)) / len(true)


def _f1(predictions: Sequence[Prediction], labels: Sequence[int | float]) -> float:
    given, true = _classes(predictions, labels)
    beyond = sorted({*given, *true} - {0, 1})
    if beyond:
        raise InputError(f"metrics='f1': class {beyond[-1]} occurs; f1 takes the two classes 0 and 1")
    return float(f1_score(true, given, zero_division=0.0))


def _matthews(predictions: Sequence[Prediction], labels: Sequence[int | float]) -> float:
    given, true = _classes(predictions, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a single class on either side is defined here as 0
        return float(matthews_corrcoef(true, given))


def _correlation(function: Callable[..., Any]) -> Callable[[Sequence[Prediction], Sequence[int | float]], float]:
    def correlation(predictions: Sequence[Prediction], labels: Sequence[int | float]) -> float:
        given = [UNREADABLE_NUMBER if p is None else float(p) for p in predictions]
        if len(set(given)) < 2 or len(set(labels)) < 2:
            return 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a side constant to rounding is defined here as 0
            value = float(function(given, labels)[0])
        return value if math.isfinite(value) else 0.0

    return correlation


_METRICS: dict[str, Callable[[Sequence[Prediction], Sequence[int | float]], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _correlation(pearsonr),
    "spearman": _correlation(spearmanr),
}
