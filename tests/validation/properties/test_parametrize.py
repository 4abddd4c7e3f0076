"""The decorator for other people's suites, in a suite of its own."""

from __future__ import annotations

import time

import pytest
from support.planted import WeightOffByK

from wtacrs.estimators import Estimator
from wtacrs.validation import parametrize_with_laws
from wtacrs.validation.properties.checks import CheckFailed, Examination, properties
from wtacrs.validation.properties.parametrize import Law
from wtacrs.validation.statistics.staged_means import Demand

pytest_plugins = ("pytester",)

SUITE = """
from wtacrs.estimators import Estimator
from wtacrs.validation import parametrize_with_laws

@parametrize_with_laws(["crs(budget=0.3)", "topk(budget=0.3)"], bias=0.5)
def test_laws(estimator, law):
    law(estimator)
"""


@pytest.mark.usefixtures("unchecked")
def test_a_suite_has_one_test_for_each_law(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    found = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    counts = found.parseoutcomes()
    assert set(counts) == {"passed", "skipped"}
    assert counts["passed"] + counts["skipped"] == 2 * len(properties())


def test_a_broken_law_fails_and_an_expected_one_is_expected() -> None:
    estimator, law = WeightOffByK(budget=0.3), "mean: equal rows"
    with pytest.raises(CheckFailed, match="off by"):
        Law(law, Examination(estimator, Demand(), only=[law]))(estimator)
    excused = Examination(estimator, Demand(), only=[law], expected_failures={law: "on purpose"})
    with pytest.raises(pytest.xfail.Exception, match="on purpose"):
        Law(law, excused)(estimator)


def test_cases_are_named_after_estimator_and_law() -> None:
    @parametrize_with_laws(["exact"])
    def laws(estimator: Estimator, law: Law) -> None:
        law(estimator)

    (mark,) = laws.pytestmark
    assert "exact-mean: equal rows" in [case.id for case in mark.args[1]]


def test_time_runs_from_the_first_law_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite may be collected long before it runs."""
    law = "mean: equal rows"
    run = Examination(WeightOffByK(budget=0.3), Demand(limit=1.0), only=[law])
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + 1e6)
    assert run.verdict(law).status == "broken"
