"""Designs without replacement and their relatives: equal to their twins, exact moments, sound at the edges."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import naive
from support.row_plans import checked, coefficients, row_estimator
from support.strategies import score_lists
from torch import Tensor

from wtacrs.estimators import Bernoulli, InputError, NoClosedForm, RowEstimator, make, sampling_scores

FIXED_SIZE = (
    "systematic(budget={budget})",
    'systematic(budget={budget}, order="rows")',
    "pivotal(budget={budget})",
    'pivotal(budget={budget}, order="rows")',
    "conditional_poisson(budget={budget})",
    "sampford(budget={budget})",
)
OTHERS = (
    "uniform(budget={budget})",
    "uniform(budget={budget}, replacement=True)",
    "bernoulli(budget={budget}, reserve=0.0)",
    "bernoulli(budget={budget})",
)
LARGE = (*FIXED_SIZE[:4], "uniform(budget={budget})", "priority(budget={budget})")

# moderate ratios: a twin in plain numbers meets rounding where scores differ by many orders
moderate = st.lists(st.sampled_from([0.0, 0.3, 1.0, 1.0, 2.0, 5.0, 20.0]), min_size=2, max_size=7).filter(any)


def numbers(estimator: RowEstimator, n: int, data: st.DataObject) -> Tensor:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    return torch.rand(estimator.uniforms(n), generator=generator, dtype=torch.float64)


def twin(estimator: RowEstimator, scores: list[float], u: list[float], k: int) -> list[float]:
    arguments = {f: getattr(estimator, f) for f in ("replacement", "order") if hasattr(estimator, f)}
    if estimator.name == "bernoulli":
        arguments["slots"] = estimator.slots(len(scores))  # type: ignore[attr-defined]
    return getattr(naive, estimator.name)(scores, u, k, **arguments)


def at_the_threshold(scores: list[float], k: int) -> bool:
    """Whether a row has π = 1 exactly without being larger than the threshold.

    Rounding decides whether such a row is drawn by a contest that it cannot lose, or not at all. Either uses the other
    uniform numbers otherwise, and both are right.
    """
    left, rows = sorted(map(Fraction, scores), reverse=True), k
    while left and rows > 0 and left[0] * rows > sum(left):
        left.pop(0)
        rows -= 1
    return bool(left) and left[0] > 0 and left[0] * rows == sum(left)


@pytest.mark.parametrize("spec", [*OTHERS, *FIXED_SIZE[2:], "priority(budget={budget})"])
@given(moderate, st.data())
def test_equal_to_the_twin(spec: str, scores: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(scores) - 1))
    assume(not at_the_threshold(scores, k))
    estimator, s = row_estimator(spec, k), checked(scores)
    u = numbers(estimator, len(scores), data)
    fast = coefficients(estimator.plan(s, u), len(scores))
    # its working probabilities are found by few steps, and come within 1e-4 of those of the twin where few rows are open
    close = 1e-4 if spec.startswith("conditional_poisson") else 1e-8
    assert fast == pytest.approx(twin(estimator, s.tolist(), u.tolist(), k), rel=close)


@pytest.mark.parametrize("n", [4, 5, 7])
def test_overflow_of_every_size_is_counted(n: int) -> None:
    """One row of n alike, far more of them included than there are slots: by the binomial law."""
    estimator, s = make("bernoulli(budget=1)"), checked([1.0] * n)
    assert isinstance(estimator, Bernoulli)
    room = estimator.slots(n)
    chance = [
        math.comb(n - 1, m - 1) * (n - 1) ** (n - m) / n**n for m in range(1, n + 1)
    ]  # included with m − 1 others
    expected = sum(c * n * n * max(1.0, m / room) for m, c in enumerate(chance, start=1))
    assert room < n
    torch.testing.assert_close(estimator.weight_squares(s), torch.full_like(s, expected), rtol=1e-12, atol=0)


@pytest.mark.parametrize("spec", FIXED_SIZE)
@given(score_lists(min_rows=2), st.data())
def test_fixed_size_designs_keep_k_distinct_rows(spec: str, scores: list[float], data: st.DataObject) -> None:
    n, s = len(scores), checked(scores)
    k = data.draw(st.integers(1, n - 1))
    estimator = row_estimator(spec, k)
    plan = estimator.plan(s, numbers(estimator, n, data))
    used = plan.indices[plan.weights > 0].tolist()
    assert len(used) == len(set(used)) == min(k, int((s > 0).sum()))
    assert (s[plan.indices] > 0).all()


@pytest.mark.parametrize("spec", FIXED_SIZE)
@pytest.mark.parametrize("end", [0.0, math.nextafter(1.0, 0.0)])
def test_uniform_numbers_at_the_ends_of_the_interval(spec: str, end: float) -> None:
    s = checked([0.0, 3.0, 1e-9, 1.0, 0.0, 1.0, 0.5])
    estimator = row_estimator(spec, 3)
    plan = estimator.plan(s, torch.full((estimator.uniforms(7),), end, dtype=torch.float64))
    assert len(set(plan.indices.tolist())) == 3
    assert (plan.weights >= 1).all()


@pytest.mark.parametrize("spec", LARGE)
@pytest.mark.parametrize("family", ["normal", "ties", "heavy"])
def test_a_million_rows_give_k_distinct_ones(spec: str, family: str, generator: torch.Generator) -> None:
    n, k = 1_000_000, 100_000
    x = torch.randn(n, 1, generator=generator)
    if family == "ties":
        x = x.abs().ceil()
    elif family == "heavy":
        x = x.abs().clamp(min=1e-6) ** -1.5
    plan = row_estimator(spec, k).draw(sampling_scores(x), generator)
    assert plan.indices.shape == (k,)
    assert plan.indices.unique().numel() == k
    assert (plan.weights >= 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("spec", FIXED_SIZE[4:])
def test_a_million_rows_are_divided_down_a_tree(spec: str, generator: torch.Generator) -> None:
    scores = torch.rand(1_000_000, generator=generator, dtype=torch.float64).clamp(min=1e-9) ** -1.5
    plan = row_estimator(spec, 100_000).draw(scores / scores.max(), generator)
    assert plan.indices.unique().numel() == 100_000
    assert (plan.weights >= 1).all()


def test_a_million_rows_decide_for_themselves(generator: torch.Generator) -> None:
    x = torch.randn(1_000_000, 1, generator=generator)
    plan = row_estimator("bernoulli(budget={budget})", 100_000).draw(sampling_scores(x), generator)
    used = plan.indices[plan.weights > 0]
    assert used.unique().numel() == used.numel() <= plan.indices.numel() == 100_600


@pytest.mark.parametrize("spec", FIXED_SIZE[4:])
def test_thousands_of_rows_stay_stable(spec: str, generator: torch.Generator) -> None:
    """π_ij of a fixed-size design sum to (k − 1) π_i over j ≠ i."""
    s = torch.rand(2000, generator=generator, dtype=torch.float64) ** 3
    k = 600
    estimator = row_estimator(spec, k)
    covariance = estimator.moments(s / s.max()).covariance
    plan = estimator.draw(s / s.max(), generator)
    assert plan.indices.unique().numel() == k
    p = 1 / estimator.weight_squares(s / s.max())
    assert float((covariance @ p).abs().max()) < 1e-9


@given(moderate)
@settings(max_examples=20)
def test_conditional_poisson_is_most_random_and_sampford_is_near(scores: list[float]) -> None:
    """Coefficients of different tail rows are never positively correlated in either design."""
    s = checked(scores)
    for spec in FIXED_SIZE[4:]:
        covariance = row_estimator(spec, 2 if len(scores) > 2 else 1).moments(s).covariance
        off_diagonal = covariance - torch.diag(covariance.diagonal())
        assert float(off_diagonal.max()) <= 1e-9


@pytest.mark.parametrize("spec", [FIXED_SIZE[0], FIXED_SIZE[2], "priority(budget={budget})"])
def test_what_has_no_closed_form_says_so(spec: str) -> None:
    with pytest.raises(NoClosedForm, match=r"no closed form.*use enumeration or Monte Carlo"):
        row_estimator(spec, 2).variance(torch.ones(5, 2), torch.ones(5, 3))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("uniform(budget=2, replacement=1)", "replacement=1 must be True or False"),
        ("bernoulli(budget=2, reserve=-1)", "reserve=-1 must be a finite number ≥ 0"),
        ("bernoulli(budget=2, reserve=True)", "reserve=True must be"),
        ('pivotal(budget=2, order="columns")', "order='columns' must be"),
    ],
)
def test_fields_out_of_range_are_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(spec)


def test_uniform_is_exact_at_full_budget_without_replacement_only() -> None:
    assert make("uniform(budget=0.5)").traits.exact_at_full_budget
    assert not make("uniform(budget=0.5, replacement=True)").traits.exact_at_full_budget


@given(moderate, st.data())
def test_priority_is_unbiased_given_the_other_rows(scores: list[float], data: st.DataObject) -> None:
    """A row is kept exactly when its number passes a threshold p, and then weighs 1/p: its mean is 1."""
    n, s = len(scores), checked(scores)
    k = data.draw(st.integers(1, n - 1))
    estimator = row_estimator("priority(budget={budget})", k)
    u = numbers(estimator, n, data)
    for i in range(n):
        others = (s / (1 - u)).index_fill(0, torch.tensor([i]), 0.0).sort(descending=True).values
        p = min(1.0, float(s[i] / others[k - 1])) if float(others[k - 1]) > 0 else float(s[i] > 0)
        for share, expected in ((1 - 1e-9, 1 / p if p > 0 else 0.0), (1 + 1e-9, 0.0)):
            number = 1 - p * share if p > 0 else 0.5
            if 0 <= number < 1:
                plan = estimator.plan(s, u.index_fill(0, torch.tensor([i]), number))
                assert coefficients(plan, n)[i] == pytest.approx(expected, rel=1e-9)
