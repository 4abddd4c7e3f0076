"""The list of properties: sound estimators pass, every planted defect is caught by a property that names it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from support.false_alarms import share
from support.planted import (
    Absolute,
    AlmostFull,
    BiasedWithoutScores,
    Blocking,
    Careless,
    Curious,
    EpsilonAdded,
    Forgetful,
    HiddenBiasedWithoutScores,
    Integers,
    Misremembered,
    MisrememberedHidden,
    OwnScores,
    Quadratic,
    Ragged,
    Secretive,
    Singular,
    Stuck,
    TailDropped,
    TailDroppedBehindHeavyWinners,
    TailNotRenormalised,
    Transposed,
    Trusting,
    UnweightedWithoutReplacement,
    WeightOffByK,
    WeightWithoutK,
)

from wtacrs.estimators import (
    CRS,
    WTACRS,
    Estimator,
    InputError,
    RowPlan,
    TopK,
    make,
)
from wtacrs.validation.properties import checks
from wtacrs.validation.properties.checks import CheckFailed, check_estimator, properties
from wtacrs.validation.properties.external_estimators import ExternalProduct
from wtacrs.validation.properties.means import POOLED
from wtacrs.validation.properties.property import PROPERTIES, Clock, Property

# the library's own refusals are under test here, not those of the signatures' checker
pytestmark = pytest.mark.usefixtures("unchecked")

SOUND = (
    "exact",
    "topk(budget=0.3)",
    "crs(budget=0.3)",
    "wta_crs(budget=0.3)",
    'wta_crs(budget=0.2, winners="optimal")',
    "wta_crs(budget=0.3, winners=5)",
    "wta_crs(budget=8, winners=0.5)",
)

ENUMERATION = "unbiased, by enumeration"
HEAVY, EQUAL, ZERO_SCORES = "mean: heavy-tailed rows", "mean: equal rows", "mean: all-zero scores"
DOMINATED = "mean: one dominating row"
MEANS = {name for name in PROPERTIES if name.startswith("mean") and name != POOLED}
SAMPLED = {*MEANS, "closed forms, by sampling"}
CLOSED_FORMS = "closed forms, by enumeration"

# what a test that only asks which properties are broken rules out: most of them then end after their first stage
BIAS = 0.5


def failures(estimator: Estimator, **options) -> dict[str, str]:
    verdicts = check_estimator(estimator, raises=False, bias=BIAS, **options)
    return {v.name: v.detail for v in verdicts if v.status == "broken"}


@pytest.mark.parametrize(
    "spec", [pytest.param(s, marks=[] if s in SOUND[:4] else pytest.mark.slow) for s in SOUND]
)
def test_sound_estimators_pass(spec):
    verdicts = check_estimator(make(spec), level=share("checks: sound estimators", len(SOUND)), bias=BIAS)
    assert [v.name for v in verdicts] == [name for name, _ in properties()]
    assert [v for v in verdicts if v.status not in ("holds", "not applicable")] == []
    assert all(v.detail for v in verdicts)


@pytest.mark.parametrize(
    ("spec", "silent"),
    [
        ("exact", {"zero scores are left out", POOLED, "closed forms, by sampling"}),
        ("topk(budget=0.3)", {"only declared scores matter", ENUMERATION, POOLED, *SAMPLED}),
        ("crs(budget=0.3)", {"only declared scores matter", "exact at full budget"}),
        ("wta_crs(budget=8, winners=0.5)", {"only declared scores matter"}),
    ],
)
def test_traits_select_the_properties(spec, silent):
    assert {v.name for v in check_estimator(make(spec), bias=BIAS) if v.status == "not applicable"} == silent


PLANTED = (
    (WeightWithoutK(budget=0.3), {ENUMERATION, *MEANS, CLOSED_FORMS}),
    (WeightOffByK(budget=0.3), {ENUMERATION, *MEANS, CLOSED_FORMS}),
    (TailNotRenormalised(budget=0.3, winners=0.5), {ENUMERATION, HEAVY, DOMINATED, CLOSED_FORMS}),
    (TailDropped(budget=0.3, winners=0.5), {ENUMERATION, HEAVY, DOMINATED, CLOSED_FORMS}),
    (TailDroppedBehindHeavyWinners(budget=0.3), {ENUMERATION, DOMINATED, CLOSED_FORMS}),
    (UnweightedWithoutReplacement(budget=0.3), MEANS),
    (Stuck(budget=0.3), {"randomness is explicit", HEAVY, "closed forms, by sampling"}),
    (EpsilonAdded(budget=0.3), {ENUMERATION, CLOSED_FORMS}),
    (BiasedWithoutScores(budget=0.3), {ENUMERATION, ZERO_SCORES, CLOSED_FORMS}),
    (HiddenBiasedWithoutScores(budget=0.3), {ZERO_SCORES}),
)


@pytest.mark.parametrize(("estimator", "broken"), PLANTED, ids=lambda v: getattr(v, "name", ""))
def test_planted_bias_is_caught(estimator, broken):
    found = failures(estimator, only=sorted(broken))
    assert broken == set(found), found


MECHANICAL = (
    (Integers(budget=0.3), "shape and dtype"),
    (Transposed(budget=0.3), "shape and dtype"),
    (Singular(budget=0.3), "huge and tiny values"),
    (Quadratic(budget=0.3), "linear in dy"),
    (Ragged(budget=0.3), "saved shapes ignore values"),
    (Careless(budget=0.3), "inputs not modified"),
    (Secretive(budget=0.3), "randomness is explicit"),
    (Ragged(budget=0.3), "no look at the values"),
    (Blocking(budget=0.3), "no look at the values"),
    (Trusting(), "refuses bad scores"),
    (Trusting(), "refuses bad shapes"),
    (Trusting(), "saved bytes"),
    (Curious(budget=0.3), "zero scores are left out"),
    (Absolute(budget=0.3), "scale of the scores"),
    (OwnScores(budget=0.3), "matmul"),
    (AlmostFull(budget=0.3), "exact at full budget"),
    (Misremembered(budget=0.3), CLOSED_FORMS),
    (MisrememberedHidden(budget=0.3), "closed forms, by sampling"),
)


@pytest.mark.parametrize(("estimator", "broken"), MECHANICAL, ids=lambda v: getattr(v, "name", v))
def test_every_property_catches_its_defect(estimator, broken, monkeypatch):
    only(monkeypatch, broken)
    assert set(failures(estimator)) == {broken}


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(checks, "PROPERTIES", {name: entry for name, entry in PROPERTIES.items() if name in names})


class Nameless(CRS):
    """Not registered."""

    name = "nameless"


def test_wrong_cuts_are_a_failure_with_the_reason(monkeypatch):
    only(monkeypatch, ENUMERATION)
    assert "changes between two cuts" in failures(Forgetful(budget=0.3))[ENUMERATION]


def test_an_unregistered_estimator_is_checked_all_the_same(monkeypatch):
    only(monkeypatch, "spec round trip", ENUMERATION)
    round_trip, unbiased = check_estimator(Nameless(budget=0.3))
    assert (round_trip.status, unbiased.status) == ("not applicable", "holds")
    assert "not registered" in round_trip.detail


def test_an_exception_breaks_the_property_and_the_others_are_still_checked(monkeypatch):
    only(monkeypatch, "shape and dtype", "spec round trip")

    class Exploding(CRS):
        name = "exploding"

        def compress(self, x, *, scores=None, generator=None):
            raise ZeroDivisionError("boom")

    by_name = {v.name: v for v in check_estimator(Exploding(budget=0.3), raises=False)}
    assert by_name["shape and dtype"].status == "broken"
    assert by_name["shape and dtype"].detail == "ZeroDivisionError: boom"
    assert by_name["spec round trip"].status == "not applicable"


def test_expected_failures_carry_their_reason_and_must_happen(monkeypatch):
    only(monkeypatch, "linear in dy", "spec round trip")
    excuses = {"linear in dy": "normalised on purpose"}
    verdict = {v.name: v for v in check_estimator(Quadratic(budget=0.3), expected_failures=excuses, raises=False)}[
        "linear in dy"
    ]
    assert verdict.status == "expected failure"
    assert verdict.detail.startswith("normalised on purpose (relative difference")
    stale = failures(TopK(budget=0.3), expected_failures=excuses)
    assert "but the property holds" in stale["linear in dy"]


def test_properties_have_names_and_one_line_descriptions():
    listed = properties()
    assert len({name for name, _ in listed}) == len(listed) == len(PROPERTIES)
    assert all(text and "\n" not in text for _, text in listed)
    assert all(isinstance(entry, Property) for entry in PROPERTIES.values())


def test_verdicts_are_a_function_of_the_seed():
    first, second = (check_estimator(CRS(budget=0.3), seed=4, bias=BIAS) for _ in range(2))
    assert [v.model_copy(update={"seconds": None}) for v in first] == [
        v.model_copy(update={"seconds": None}) for v in second
    ]


def test_the_callers_random_state_is_left_alone(monkeypatch):
    only(monkeypatch, "randomness is explicit", "no look at the values", "shape and dtype")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    check_estimator(WTACRS(budget=0.3))
    assert torch.equal(torch.get_rng_state(), before)


def test_misuse_names_the_argument():
    with pytest.raises(InputError, match="no property is called 'linearity'"):
        check_estimator(CRS(budget=0.3), expected_failures={"linearity": "?"})
    with pytest.raises(InputError, match="got str"):
        check_estimator("crs(budget=0.3)")
    with pytest.raises(InputError, match="only: no property is called 'linearity'"):
        check_estimator(CRS(budget=0.3), only=["linearity"])
    for argument in ("level", "bias", "power", "limit"):
        with pytest.raises(InputError, match=f"{argument}=-2"):
            check_estimator(CRS(budget=0.3), **{argument: -2})


def test_a_broken_property_raises_a_report_that_can_be_read():
    with pytest.raises(CheckFailed, match=r"(?s)weight_off_by_k.*broken: mean: equal rows: ") as caught:
        check_estimator(WeightOffByK(budget=0.3), only=["mean: equal rows", "spec round trip"])
    assert [v.status for v in caught.value.verdicts] == ["not applicable", "broken"]
    assert str(caught.value).count("\n") == 1


def test_the_last_law_that_draws_has_all_the_time_that_is_left(monkeypatch):
    """Laws that do not apply, such as those of layers to a product, have their turn and leave their time."""
    to_come: list[int] = []
    whole = Clock.allowance
    monkeypatch.setattr(Clock, "allowance", lambda clock: to_come.append(clock.tests) or whole(clock))
    product = ExternalProduct("exact", lambda x, dy: dy.T @ x)
    verdicts = check_estimator(product, bias=BIAS)
    assert len([v for v in verdicts if v.draws]) == len(to_come)
    assert to_come == list(range(len(to_come)))[::-1]


def test_too_little_time_leaves_a_mean_undecided():
    """30 draws are the least, and a hundredth of a second does not hold enough to rule anything out."""
    (found,) = check_estimator(CRS(budget=0.01), only=["mean: rows that cancel"], limit=0.05, raises=False)
    assert found.status == "undecided"
    with pytest.raises(CheckFailed, match="undecided"):
        check_estimator(CRS(budget=0.01), only=["mean: rows that cancel"], limit=0.05)


@dataclass(frozen=True, repr=False)
class Fragile(CRS):
    """Divides by the number of rows, none of an empty input."""

    def plan(self, scores: torch.Tensor, uniforms: torch.Tensor) -> RowPlan:
        assert 1 / len(scores)
        return super().plan(scores, uniforms)


def test_an_exception_names_the_size_that_it_came_at() -> None:
    (verdict,) = check_estimator(Fragile(budget=0.5), only=["awkward sizes"], raises=False)
    assert (verdict.status, verdict.detail) == ("broken", "n=0: ZeroDivisionError: division by zero")
