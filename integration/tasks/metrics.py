"""Metrics by name, and what a generated text counts as.

`None` stands for a generated text that is no answer of the task. In classification it counts as wrong: with two
classes as the other one than the true class, with more as a class of its own. In regression it counts as the middle of
the task's scale. Where answers are free text, every text is an answer: predictions and labels are texts then.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.tasks.base import Label

SCALE = (0.0, 5.0)
"""The range of the numbers of STS-B, the regression task of GLUE."""

TEXT_METRICS = ("chrf", "bleu", "exact_match")
"""Metrics of free text, by sacrebleu but for the last."""

_NO_CLASS = -1

Prediction = int | float | str | None


def score(
    metrics: Sequence[str],
    predictions: Sequence[Prediction],
    labels: Sequence[Label],
    *,
    scale: tuple[float, float] = SCALE,
) -> dict[str, float]:
    """Compute metrics of predictions against labels.

    Args:
        metrics: out of accuracy, f1 (of class 1, with two classes only), macro_f1, matthews, pearson, spearman; for texts
            out of `TEXT_METRICS`.
        predictions: class indices, numbers or texts; None for an unparsable answer (see the module's description).
        labels: the true class indices, numbers or texts, as many.
        scale: range of the numbers of regression, whose middle an unparsable answer counts as.

    Returns:
        metric → value: correlations and matthews in [−1, 1], the others in [0, 1]. A correlation with a constant side
        is 0.

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
    if set(metrics) & {"pearson", "spearman"}:
        predictions = [sum(scale) / 2 if p is None else p for p in predictions]
    return {metric: _METRICS[metric](predictions, labels) for metric in metrics}


def parse_target(
    text: str, labels: tuple[str, ...] | None, scale: tuple[float, float] = SCALE
) -> int | float | None:
    """Read a generated answer.

    With `labels`, the index of the label that the text spells exactly, outer spaces aside. With None
    (regression), the number if it lies in `scale`. None for everything else.
    """
    answer = text.strip()
    if labels is not None:
        return labels.index(answer) if answer in labels else None
    try:
        value = float(answer)
    except ValueError:
        return None
    return value if scale[0] <= value <= scale[1] else None


def _classes(predictions: Sequence[Prediction], labels: Sequence[Label]) -> tuple[list[int], list[int]]:
    """Class indices, unparsable answers made wrong ones."""
    true = [int(label) for label in labels]
    binary = {*true, *(int(p) for p in predictions if p is not None)} <= {0, 1}
    given = [
        int(p) if p is not None else (1 - label if binary else _NO_CLASS)
        for p, label in zip(predictions, true, strict=True)
    ]
    return given, true


def _accuracy(predictions: Sequence[Prediction], labels: Sequence[Label]) -> float:
    given, true = _classes(predictions, labels)
    return sum(p == t for p, t in zip(given, true, strict=True)) / len(true)


def _f1(predictions: Sequence[Prediction], labels: Sequence[Label]) -> float:
    given, true = _classes(predictions, labels)
    beyond = sorted({*given, *true} - {0, 1})
    if beyond:
        raise InputError(f"metrics='f1': class {beyond[-1]} occurs; f1 takes the two classes 0 and 1")
    return float(f1_score(true, given, zero_division=0.0))


def _macro_f1(predictions: Sequence[Prediction], labels: Sequence[Label]) -> float:
    given, true = _classes(predictions, labels)
    classes = sorted({*given, *true} - {_NO_CLASS})
    return float(f1_score(true, given, labels=classes, average="macro", zero_division=0.0))


def _matthews(predictions: Sequence[Prediction], labels: Sequence[Label]) -> float:
    given, true = _classes(predictions, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a single class on either side is defined here as 0
        return float(matthews_corrcoef(true, given))


def _correlation(function: Callable[..., Any]) -> Callable[[Sequence[Prediction], Sequence[Label]], float]:
    def correlation(predictions: Sequence[Prediction], labels: Sequence[Label]) -> float:
        given, true = [float(p) for p in predictions if p is not None], [float(label) for label in labels]
        if len(set(given)) < 2 or len(set(true)) < 2:
            return 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a side constant to rounding is defined here as 0
            value = float(function(given, true)[0])
        return value if math.isfinite(value) else 0.0

    return correlation


def _texts(values: Sequence[Prediction] | Sequence[Label]) -> list[str]:
    """Texts with every run of white space as one space."""
    return [" ".join(str(value or "").split()) for value in values]


def _exact_match(predictions: Sequence[Prediction], labels: Sequence[Label]) -> float:
    pairs = zip(_texts(predictions), _texts(labels), strict=True)
    return sum(given == true for given, true in pairs) / len(labels)


def _sacrebleu(name: str) -> Callable[[Sequence[Prediction], Sequence[Label]], float]:
    def metric(predictions: Sequence[Prediction], labels: Sequence[Label]) -> float:
        import sacrebleu

        made = getattr(sacrebleu, name)()
        with _silent("sacrebleu"):  # it takes texts whose words end in " ." for tokenized ones
            return float(made.corpus_score(_texts(predictions), [_texts(labels)]).score) / 100.0

    return metric


@contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


_METRICS: dict[str, Callable[[Sequence[Prediction], Sequence[Label]], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
    "pearson": _correlation(pearsonr),
    "spearman": _correlation(spearmanr),
    "chrf": _sacrebleu("CHRF"),
    "bleu": _sacrebleu("BLEU"),
    "exact_match": _exact_match,
}
