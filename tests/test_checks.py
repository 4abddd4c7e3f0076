"""The law-book: sound estimators pass, every planted defect is caught by a law that names it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from false_alarms import share

from wtacrs.estimators import (
    CRS,
    WTACRS,
    Estimator,
    InputError,
    RowEstimator,
    RowPlan,
    TopK,
    Traits,
    make,
    row_norms,
    sampling_scores,
)
from wtacrs.validation import checks
from wtacrs.validation.checks import check_estimator, laws
from wtacrs.validation.laws import LAWS, Law

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
SAMPLING = "unbiased, by sampling"
CLOSED_FORMS = "closed forms, by enumeration"


def failures(estimator: Estimator, **options) -> dict[str, str]:
    return {v.law: v.detail for v in check_estimator(estimator, **options) if v.status == "fail"}


@pytest.mark.parametrize("spec", SOUND)
def test_sound_estimators_pass(spec):
    verdicts = check_estimator(make(spec), level=share("checks: sound estimators", len(SOUND)))
    assert [v.law for v in verdicts] == [name for name, _ in laws()]
    assert [v for v in verdicts if v.status not in ("pass", "not applicable")] == []
    assert all(v.detail for v in verdicts)


@pytest.mark.parametrize(
    ("spec", "silent"),
    [
        ("exact", {"zero scores are left out", SAMPLING, "closed forms, by sampling"}),
        ("topk(budget=0.3)", {"only declared scores matter", ENUMERATION, SAMPLING, "closed forms, by sampling"}),
        ("crs(budget=0.3)", {"only declared scores matter", "exact at full budget"}),
        ("wta_crs(budget=8, winners=0.5)", {"only declared scores matter"}),
    ],
)
def test_traits_select_the_laws(spec, silent):
    assert {v.law for v in check_estimator(make(spec)) if v.status == "not applicable"} == silent


class WeightWithoutK(CRS):
    """The 1/k of the weights is missing."""

    name = "weight_without_k"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        return plan._replace(weights=plan.weights * uniforms.shape[0])


class WeightOffByK(CRS):
    """Divides by k twice."""

    name = "weight_off_by_k"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        return plan._replace(weights=plan.weights / max(uniforms.shape[0], 1))


class TailNotRenormalised(WTACRS):
    """Tail rows weighed as if drawn from all rows: 1/((k − |C|) p) instead of P_T/((k − |C|) p)."""

    name = "tail_not_renormalised"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        tail, _ = self._tail(scores)
        mass = (scores * tail).sum() / scores.sum()
        in_tail = tail[plan.indices] > 0
        return plan._replace(weights=torch.where(in_tail, plan.weights / mass, plan.weights))


class TailDropped(WTACRS):
    """Draws the tail and gives it no weight."""

    name = "tail_dropped"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        tail, _ = self._tail(scores)
        return plan._replace(weights=torch.where(tail[plan.indices] > 0, 0.0, plan.weights))


class TailDroppedBehindHeavyWinners(WTACRS):
    """Drops the tail only where the winners hold more than 0.999 of the mass."""

    name = "tail_dropped_behind_heavy_winners"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        tail, _ = self._tail(scores)
        light = (scores * tail).sum() < 1e-3 * scores.sum()
        return plan._replace(weights=torch.where((tail[plan.indices] > 0) & light, 0.0, plan.weights))


@dataclass(frozen=True, repr=False)
class UnweightedWithoutReplacement(RowEstimator):
    """k distinct rows, unweighted; no cuts, so only sampling can tell."""

    name: ClassVar[str] = "unweighted_without_replacement"
    traits: ClassVar[Traits] = Traits("rows", True, False, True, True)

    def uniforms(self, n):
        return n

    def plan(self, scores, uniforms):
        k = max(
            min(int(self.budget * len(scores)) if isinstance(self.budget, float) else self.budget, len(scores)), 0
        )
        keys = torch.where(scores > 0, uniforms, 2.0)
        return RowPlan(keys.argsort()[:k], (scores[keys.argsort()[:k]] > 0).double())


class Stuck(CRS):
    """Its random stream starts anew at every call."""

    name = "stuck"

    def draw(self, scores, generator=None):
        own = torch.Generator(scores.device).manual_seed(1)
        return super().draw(scores, own)


class EpsilonAdded(CRS):
    """ε on every probability, in the draw and not in the normalisation of the weights."""

    name = "epsilon_added"

    def plan(self, scores, uniforms):
        positive = scores > 0
        lifted = torch.where(positive, scores / scores.sum() + 1e-6, 0.0)
        plan = super().plan(lifted, uniforms)
        return plan._replace(weights=1.0 / (lifted[plan.indices] * max(uniforms.shape[0], 1)))

    def cuts(self, scores, chosen):
        return super().cuts(torch.where(scores > 0, scores / scores.sum() + 1e-6, 0.0), chosen)


class BiasedWithoutScores(CRS):
    """Forgets the weights when all scores are equal, as they are when none is known."""

    name = "biased_without_scores"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        unknown = (scores == scores[:1]).all() if scores.numel() else torch.tensor(False)
        return plan._replace(weights=torch.where(unknown, 1.0, plan.weights))


class HiddenBiasedWithoutScores(BiasedWithoutScores):
    """The same, behind an overridden draw: enumeration cannot see it."""

    name = "hidden_biased_without_scores"

    def draw(self, scores, generator=None):
        return super().draw(scores, generator)


PLANTED = (
    (WeightWithoutK(budget=0.3), {ENUMERATION, SAMPLING, CLOSED_FORMS}),
    (WeightOffByK(budget=0.3), {ENUMERATION, SAMPLING, CLOSED_FORMS}),
    (TailNotRenormalised(budget=0.3, winners=0.5), {ENUMERATION, SAMPLING, CLOSED_FORMS}),
    (TailDropped(budget=0.3, winners=0.5), {ENUMERATION, SAMPLING, CLOSED_FORMS}),
    (TailDroppedBehindHeavyWinners(budget=0.3), {ENUMERATION, CLOSED_FORMS}),
    (UnweightedWithoutReplacement(budget=0.3), {SAMPLING}),
    (Stuck(budget=0.3), {"randomness is explicit", SAMPLING, "closed forms, by sampling"}),
    (EpsilonAdded(budget=0.3), {ENUMERATION, CLOSED_FORMS}),
    (BiasedWithoutScores(budget=0.3), {ENUMERATION, SAMPLING, CLOSED_FORMS}),
    (HiddenBiasedWithoutScores(budget=0.3), {SAMPLING}),
)


@pytest.mark.parametrize(("estimator", "laws_broken"), PLANTED, ids=lambda v: getattr(v, "name", ""))
def test_planted_bias_is_caught(estimator, laws_broken):
    broken = failures(estimator)
    assert laws_broken <= set(broken), broken


class Integers(CRS):
    """Returns the wrong dtype."""

    name = "integers"

    def contract(self, saved, dy):
        return super().contract(saved, dy).float()


class Transposed(CRS):
    """Returns `[d, m]`."""

    name = "transposed"

    def contract(self, saved, dy):
        return super().contract(saved, dy).T


class Quadratic(TopK):
    """Not linear in dy."""

    name = "quadratic"

    def contract(self, saved, dy):
        product = super().contract(saved, dy)
        return product * product.norm()


class Careless(CRS):
    """Scales x in place."""

    name = "careless"

    def compress(self, x, *, scores=None, generator=None):
        saved = super().compress(x, scores=scores, generator=generator)
        x.mul_(0.5)
        return saved


class Secretive(TopK):
    """Declared deterministic, yet draws."""

    name = "secretive"

    def compress(self, x, *, scores=None, generator=None):
        torch.rand(1)
        return super().compress(x, scores=scores, generator=generator)


class Ragged(TopK):
    """Saves as many rows as have a positive score."""

    name = "ragged"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        used = plan.weights > 0
        return RowPlan(plan.indices[used], plan.weights[used])


class Trusting(Estimator):
    """Checks nothing, and keeps x alive behind a small view."""

    name = "trusting"
    traits = Traits("rows", False, True, True, False)

    def compress(self, x, *, scores=None, generator=None):
        return x[: x.shape[0] // 2], x.new_empty((x.shape[0], 0))

    def contract(self, saved, dy):
        return dy[: saved[0].shape[0]].T @ saved[0]

    def __repr__(self):
        return "trusting"


class Blocking(TopK):
    """Waits for the device."""

    name = "blocking"

    def plan(self, scores, uniforms):
        scores.sum().item()
        return super().plan(scores, uniforms)


class Curious(TopK):
    """Keeps a row of score 0 where there is room."""

    name = "curious"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        return plan._replace(
            indices=scores.argsort()[: plan.indices.numel()], weights=torch.ones_like(plan.weights)
        )


class Absolute(TopK):
    """Reads the scores' absolute size."""

    name = "absolute"

    def compress(self, x, *, scores=None, generator=None):
        raw = row_norms(x) if scores is None else scores.double()
        sampling_scores(x, scores)
        return super().compress(x, scores=torch.where(raw > 1.0, raw, 0.0), generator=generator)


class Misremembered(CRS):
    """States the variance of one draw."""

    name = "misremembered"

    def variance(self, x, dy, *, scores=None):
        return super().variance(x, dy, scores=scores) * 2.0


class MisrememberedHidden(Misremembered):
    """The same where nothing can be enumerated."""

    name = "misremembered_hidden"

    def draw(self, scores, generator=None):
        return super().draw(scores, generator)


class OwnScores(TopK):
    """`matmul` forgets the joint norms."""

    name = "own_scores"

    def matmul(self, a, b, *, scores=None, generator=None):
        return self.contract(self.compress(b, scores=scores, generator=generator), a.T)


class AlmostFull(TopK):
    """Never keeps all rows, yet declares to be exact then."""

    name = "almost_full"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        last = torch.arange(plan.weights.numel()) == plan.weights.numel() - 1
        return plan._replace(weights=torch.where(last, 0.0, plan.weights))


class Singular(CRS):
    """Squares fp16 norms: overflows."""

    name = "singular"

    def contract(self, saved, dy):
        product = super().contract(saved, dy)
        return product * (saved.rows.square().sum() / saved.rows.square().sum())


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
def test_every_law_catches_its_defect(estimator, broken, monkeypatch):
    only(monkeypatch, broken)
    assert set(failures(estimator)) == {broken}


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(checks, "LAWS", {name: entry for name, entry in LAWS.items() if name in names})


class Forgetful(CRS):
    """Its cuts miss one."""

    name = "forgetful"

    def cuts(self, scores, chosen):
        return super().cuts(scores, chosen)[1:]


class Nameless(CRS):
    """Not registered."""

    name = "nameless"


def test_wrong_cuts_are_a_failure_with_the_reason(monkeypatch):
    only(monkeypatch, ENUMERATION)
    assert "changes between two cuts" in failures(Forgetful(budget=0.3))[ENUMERATION]


def test_an_unregistered_estimator_is_checked_all_the_same(monkeypatch):
    only(monkeypatch, "spec round trip", ENUMERATION)
    round_trip, unbiased = check_estimator(Nameless(budget=0.3))
    assert (round_trip.status, unbiased.status) == ("not applicable", "pass")
    assert "not registered" in round_trip.detail


def test_an_exception_is_a_failed_law_and_the_others_are_still_checked(monkeypatch):
    only(monkeypatch, "shape and dtype", "spec round trip")

    class Exploding(CRS):
        name = "exploding"

        def compress(self, x, *, scores=None, generator=None):
            raise ZeroDivisionError("boom")

    by_law = {v.law: v for v in check_estimator(Exploding(budget=0.3))}
    assert by_law["shape and dtype"].status == "fail"
    assert by_law["shape and dtype"].detail == "ZeroDivisionError: boom"
    assert by_law["spec round trip"].status == "not applicable"


def test_expected_failures_carry_their_reason_and_must_happen(monkeypatch):
    only(monkeypatch, "linear in dy", "spec round trip")
    excuses = {"linear in dy": "normalised on purpose"}
    verdict = {v.law: v for v in check_estimator(Quadratic(budget=0.3), expected_failures=excuses)}["linear in dy"]
    assert verdict.status == "expected failure"
    assert verdict.detail.startswith("normalised on purpose (relative difference")
    stale = failures(TopK(budget=0.3), expected_failures=excuses)
    assert "but the law holds" in stale["linear in dy"]


def test_laws_have_names_and_one_line_descriptions():
    listed = laws()
    assert len({name for name, _ in listed}) == len(listed) == len(LAWS)
    assert all(text and "\n" not in text for _, text in listed)
    assert all(isinstance(entry, Law) for entry in LAWS.values())


def test_verdicts_are_a_function_of_the_seed():
    assert check_estimator(CRS(budget=0.3), seed=4) == check_estimator(CRS(budget=0.3), seed=4)


def test_the_callers_random_state_is_left_alone(monkeypatch):
    only(monkeypatch, "randomness is explicit", "no look at the values", "shape and dtype")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    check_estimator(WTACRS(budget=0.3))
    assert torch.equal(torch.get_rng_state(), before)


def test_misuse_names_the_argument():
    with pytest.raises(InputError, match="no law is called 'linearity'"):
        check_estimator(CRS(budget=0.3), expected_failures={"linearity": "?"})
    with pytest.raises(InputError, match="got str"):
        check_estimator("crs(budget=0.3)")
    with pytest.raises(InputError, match=r"level=2"):
        check_estimator(CRS(budget=0.3), level=2)
