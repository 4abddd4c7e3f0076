"""Metrics against their definitions, and what counts when a text is no answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.tasks.metrics import parse_target, score

ALL = ("accuracy", "f1", "matthews")
binary = st.lists(st.tuples(st.sampled_from([0, 1, None]), st.integers(0, 1)), min_size=1, max_size=30)
numbers = st.lists(
    st.tuples(st.none() | st.integers(0, 25).map(lambda i: i / 5), st.integers(0, 25).map(lambda i: i / 5)),
    min_size=2,
    max_size=30,
)


@given(binary)
def test_binary_metrics_are_their_definitions(pairs: list[tuple[int | None, int]]) -> None:
    """Counted by hand, an unparsable answer as the other class."""
    pairs_known = [(1 - t if p is None else p, t) for p, t in pairs]
    tp, fp, fn, tn = (pairs_known.count(cell) for cell in ((1, 1), (1, 0), (0, 1), (0, 0)))
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    expected = {
        "accuracy": (tp + tn) / len(pairs),
        "f1": 2 * tp / (2 * tp + fp + fn) if tp else 0.0,
        "matthews": (tp * tn - fp * fn) / math.sqrt(product) if product else 0.0,
    }
    assert score(ALL, [p for p, _ in pairs], [t for _, t in pairs]) == pytest.approx(expected, abs=1e-12)


@given(numbers)
def test_correlations_are_their_definitions(pairs: list[tuple[float | None, float]]) -> None:
    x = np.array([2.5 if p is None else p for p, _ in pairs])
    y = np.array([t for _, t in pairs])

    def pearson(a: np.ndarray, b: np.ndarray) -> float:
        return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(np.corrcoef(a, b)[0, 1])

    def ranks(a: np.ndarray) -> np.ndarray:
        return np.array([(a < v).sum() + (a == v).sum() / 2 for v in a])

    expected = {"pearson": pearson(x, y), "spearman": pearson(ranks(x), ranks(y))}
    got = score(("pearson", "spearman"), [p for p, _ in pairs], [t for _, t in pairs])
    assert got == pytest.approx(expected, abs=1e-9)


def test_unparsable_answers_are_wrong_with_many_classes() -> None:
    got = score(("accuracy", "matthews"), [0, 1, 2, None], [0, 1, 2, 2])
    assert got["accuracy"] == 0.75
    assert 0 < got["matthews"] < 1


def test_only_unparsable_answers() -> None:
    assert score(ALL, [None] * 4, [0, 1, 1, 0]) == {"accuracy": 0.0, "f1": 0.0, "matthews": -1.0}
    assert score(("pearson",), [None] * 3, [1.0, 2.0, 3.0]) == {"pearson": 0.0}


@pytest.mark.parametrize("constant", [0, 3.2, 1e-300])
def test_constant_predictions_have_correlation_zero(constant: float, recwarn: pytest.WarningsRecorder) -> None:
    assert score(("pearson", "spearman"), [constant] * 4, [0.0, 1.0, 2.0, 3.5]) == {
        "pearson": 0.0,
        "spearman": 0.0,
    }
    assert score(("matthews",), [1] * 3, [1, 0, 1]) == {"matthews": 0.0}
    assert not recwarn.list


@pytest.mark.parametrize(
    ("metrics", "predictions", "labels", "message"),
    [
        (("accuracy", "rouge"), [1], [1], "metrics='rouge'"),
        (("accuracy",), [], [], "0 and 0 values"),
        (("accuracy",), [1, 0], [1], "2 and 1 values"),
        (("f1",), [1, 2], [1, 0], "class 2 occurs"),
    ],
)
def test_bad_input(metrics: tuple[str, ...], predictions: list[int], labels: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        score(metrics, predictions, labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "answer"), [("True", 1), (" False \n", 0), ("true", None), ("Tru", None), ("True.", None), ("", None)]
)
def test_parse_a_word(text: str, answer: int | None) -> None:
    assert parse_target(text, ("False", "True")) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3.8", 3.8),
        (" 5 ", 5.0),
        ("0.0", 0.0),
        ("5.2", None),
        ("-1", None),
        ("nan", None),
        ("3.8.2", None),
        ("", None),
    ],
)
def test_parse_a_number(text: str, answer: float | None) -> None:
    assert parse_target(text, None) == answer
