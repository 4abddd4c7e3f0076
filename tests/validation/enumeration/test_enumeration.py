"""Enumeration: every outcome once, equal to closed forms and to plain Python sums, and wrong cuts do not pass."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.planted import Forgetful
from support.strategies import products

from wtacrs.estimators import (
    CRS,
    WTACRS,
    Estimator,
    InputError,
    NoClosedForm,
    RowEstimator,
    RowPlan,
    Traits,
    joint_norms,
    make,
    sampling_scores,
)
from wtacrs.validation.enumeration.exact_moments import can_enumerate, enumerate_moments
from wtacrs.validation.enumeration.plans import WrongCuts, listed_plans
from wtacrs.validation.problems import PROBLEMS, make_problem

SPECS = (
    "topk",
    "crs",
    "wta_crs",
    'wta_crs(budget=1, winners="optimal")',
    "wta_crs(budget=1, winners=0)",
    "wta_crs(budget=2, winners=1)",
    "wta_crs(budget=1, winners=0.5)",
    "uniform(budget=1)",
    "uniform(budget=1, replacement=True)",
    "bernoulli(budget=1, reserve=0.0)",
    "bernoulli(budget=1)",
    "systematic(budget=1)",
    'systematic(budget=1, order="rows")',
    "pivotal(budget=1)",
    'pivotal(budget=1, order="rows")',
    "conditional_poisson(budget=1)",
    "sampford(budget=1)",
)
# a number for every row, or an order of the rows: many outcomes even where few rows are kept
MANY = ("bernoulli", "uniform(budget=1)", "systematic(budget=1)", "pivotal", "conditional_poisson", "sampford")


def at_budget(spec: str, k: int) -> Estimator:
    return make(spec, budget=k)


def assert_closed_forms(estimator: Estimator, x, dy, scores) -> None:
    """Enumeration = closed form = moments, relative to Σw (mean) and E‖Ĝ‖² (variance)."""
    found = enumerate_moments(estimator, x, dy, scores=scores)
    assert found.probability == pytest.approx(1.0, abs=1e-12)
    ready, size = sampling_scores(x, scores), float(joint_norms(x, dy).sum())
    assert float((found.mean - estimator.expectation(x, dy, scores=scores)).norm()) <= 1e-10 * size
    accepted = accuracy(found.coefficient_covariance)
    if estimator.traits.unbiased:
        torch.testing.assert_close(found.coefficient_mean, (ready > 0).double(), rtol=0, atol=accepted)
    try:
        mean, covariance = estimator.moments(ready)
    except NoClosedForm:
        return
    scale = found.variance + float(found.mean.square().sum())
    assert abs(found.variance - float(estimator.variance(x, dy, scores=scores))) <= 1e-10 * scale
    torch.testing.assert_close(found.coefficient_mean, mean, rtol=0, atol=accepted)
    top = 1 + float(covariance.abs().amax()) if covariance.numel() else 1.0
    torch.testing.assert_close(found.coefficient_covariance, covariance, rtol=0, atol=accepted * top)


def accuracy(variances) -> float:
    """1e-10, unless a row weighs more than 10⁵: its cell lies between two cuts that are rounded to 1e-16."""
    return max(1e-10, 5e-16 * float(variances.amax())) if variances.numel() else 1e-10


def assert_weight_squares(estimator: RowEstimator, scores) -> None:
    """Over all outcomes, the squared weights of the slots that hold each row, added up."""
    try:
        stated = estimator.weight_squares(scores)
    except NoClosedForm:
        return
    listed = torch.zeros_like(scores)
    for plan, probability in listed_plans(estimator, scores, 200_000):
        listed.index_add_(0, plan.indices, probability * plan.weights.square())
    torch.testing.assert_close(stated, listed, rtol=0, atol=accuracy(listed) * (1 + float(listed.amax())))


@pytest.mark.parametrize("spec", SPECS)
# the checks of signatures, which the fixture turns off for all examples alike, would take most of the time
@pytest.mark.usefixtures("unchecked")
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    problem=products(max_rows=5),
    k=st.integers(1, 3),
    levels=st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0, 50.0]), min_size=5, max_size=5),
    own=st.booleans(),
)
def test_enumeration_is_the_closed_form(spec, problem, k, levels, own):
    few = 3 if spec.startswith("bernoulli") else 4 if spec.startswith(MANY) else 5
    x, dy = problem[0][:few], problem[1][:few]
    scores = None if own else torch.tensor(levels[: x.shape[0]], dtype=torch.float64)
    try:
        estimator = at_budget(spec, k)
        estimator.compress(x)
    except InputError:  # a fixed number of winners that leaves no draw for the tail
        return
    assert_closed_forms(estimator, x, dy, scores)
    assert_weight_squares(estimator, sampling_scores(x, scores))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("spec", SPECS)
def test_enumeration_is_the_closed_form_on_every_family(name, spec):
    n = 3 if spec.startswith(MANY) else 6
    x, dy = make_problem(name, n, 3, 2, generator=torch.Generator().manual_seed(5))
    for scores in (None, joint_norms(x, dy), torch.zeros(n)):
        assert_closed_forms(at_budget(spec, 2), x, dy, scores)


def test_against_a_plain_sum_over_all_outcomes(generator):
    """CRS by its definition, k-fold product of p, in Python numbers."""
    x, dy = make_problem("gaussian", 4, 2, 2, generator=generator)
    p = [0.1, 0.2, 0.3, 0.4]
    terms = [torch.outer(dy[i], x[i]) / (3 * p[i]) for i in range(4)]
    mean, second = torch.zeros(2, 2, dtype=torch.float64), 0.0
    for outcome in itertools.product(range(4), repeat=3):
        probability = p[outcome[0]] * p[outcome[1]] * p[outcome[2]]
        estimate = sum(terms[i] for i in outcome)
        mean += probability * estimate
        second += probability * float(estimate.square().sum())
    found = enumerate_moments(CRS(budget=3), x, dy, scores=torch.tensor(p, dtype=torch.float64))
    assert found.outcomes == 64
    torch.testing.assert_close(found.mean, mean, rtol=1e-12, atol=1e-12)
    assert found.variance == pytest.approx(second - float(mean.square().sum()), rel=1e-12)


def test_deterministic_estimators_have_one_outcome(generator):
    x, dy = make_problem("gaussian", 5, 3, 2, generator=generator)
    for spec in ("exact", "topk(budget=2)"):
        found = enumerate_moments(make(spec), x, dy)
        assert (found.outcomes, found.variance, found.probability) == (1, 0.0, 1.0)
        assert torch.equal(found.mean, make(spec).contract(make(spec).compress(x), dy))
    assert enumerate_moments(make("exact"), x, dy).coefficient_mean is None


def test_unreachable_rows_and_certain_winners_make_no_outcomes(generator):
    x, dy = make_problem("gaussian", 6, 3, 2, generator=generator)
    scores = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 2.0])
    assert enumerate_moments(CRS(budget=2), x, dy, scores=scores).outcomes == 9
    assert enumerate_moments(WTACRS(budget=3, winners=1), x, dy, scores=scores).outcomes == 4
    assert enumerate_moments(WTACRS(budget=6), x, dy).outcomes == 1


def test_empty_input():
    x, dy = torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, 2, dtype=torch.float64)
    found = enumerate_moments(CRS(budget=2), x, dy)
    assert found.outcomes == 1
    assert not bool(found.mean.any())


def test_more_outcomes_than_the_limit_are_refused_at_once(generator):
    x, dy = make_problem("gaussian", 6, 3, 2, generator=generator)
    assert enumerate_moments(CRS(budget=3), x, dy, limit=216).outcomes == 216
    with pytest.raises(InputError, match="limit=215"):
        enumerate_moments(CRS(budget=3), x, dy, limit=215)
    large = torch.ones(3000, 2, dtype=torch.float64)
    with pytest.raises(InputError, match="limit=200000"):
        enumerate_moments(CRS(budget=0.5), large, large)


class Drawn(CRS):
    """Overrides the draw: its plan no longer says what it does."""

    name = "drawn"

    def draw(self, scores, generator=None):
        return super().draw(scores.sqrt(), generator)


@dataclass(frozen=True, repr=False)
class Uncut(RowEstimator):
    """A random row design without cuts."""

    name: ClassVar[str] = "uncut"
    traits: ClassVar[Traits] = CRS.traits

    def plan(self, scores, uniforms):
        return RowPlan((uniforms * scores.shape[0]).long(), torch.ones_like(uniforms))


class Sketch(Estimator):
    """A random estimator that is no row design."""

    name = "sketch"
    traits = Traits("sketch", True, False, False, False)

    def compress(self, x, *, scores=None, generator=None):
        raise AssertionError("never called")

    def contract(self, saved, dy):
        raise AssertionError("never called")

    def __repr__(self):
        return "sketch"


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [(Drawn(budget=2), "overrides draw"), (Uncut(budget=2), "cuts"), (Sketch(), "no SourcedEstimator")],
)
def test_what_cannot_be_enumerated_says_why(estimator, reason):
    x = torch.ones(4, 2, dtype=torch.float64)
    assert reason in str(can_enumerate(estimator))
    with pytest.raises(InputError, match=reason):
        enumerate_moments(estimator, x, x)


class ShiftedCut(CRS):
    """Cuts slightly off."""

    name = "shifted_cut"

    def cuts(self, scores, chosen):
        return super().cuts(scores, chosen) + 1e-4


class Ordered(CRS):
    """Its plan depends on which number is larger, whatever the cell."""

    name = "ordered"

    def plan(self, scores, uniforms):
        return RowPlan((uniforms.sort().indices[:1]).expand(2), torch.ones_like(uniforms))

    def cuts(self, scores, chosen):
        return chosen


@pytest.mark.parametrize("cls", [Forgetful, ShiftedCut, Ordered])
def test_wrong_cuts_are_found(cls):
    x = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    with pytest.raises(WrongCuts, match="changes between two cuts"):
        enumerate_moments(cls(budget=2), x, x)
