"""Roundings and composites: enumeration through the code that trains, equal to closed forms, and blind to no defect."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from wtacrs.estimators import (
    CRS,
    FP8,
    ControlVariate,
    Estimator,
    InputError,
    NoClosedForm,
    QuantizedRows,
    StochasticRounding,
    joint_norms,
    make,
    sampling_scores,
)
from wtacrs.estimators.composites.control_variate import Base, stored_base
from wtacrs.estimators.core.packing import pack_bits
from wtacrs.validation.enumeration.exact_moments import ExactMoments, can_enumerate, enumerate_moments
from wtacrs.validation.enumeration.plans import WrongCuts
from wtacrs.validation.problems import PROBLEMS, make_problem
from wtacrs.validation.properties import checks
from wtacrs.validation.properties.checks import check_estimator
from wtacrs.validation.properties.property import PROPERTIES

# the signatures are checked by the tests of the parts; here they would take most of the time
pytestmark = pytest.mark.usefixtures("unchecked")

DESIGNS = (
    "crs(budget={k})",
    "wta_crs(budget={k})",
    "uniform(budget={k})",
    "uniform(budget={k}, replacement=True)",
    "bernoulli(budget={k}, reserve=0.0)",
    "systematic(budget={k})",
    'systematic(budget={k}, order="rows")',
    "pivotal(budget={k})",
    'pivotal(budget={k}, order="rows")',
    "conditional_poisson(budget={k})",
    "sampford(budget={k})",
)
ROUNDINGS = (
    "bits=2",
    "bits=8, group=1",
    'bits=2, group=1, rounding="stochastic"',
    'bits=4, rounding="stochastic"',
)
ALONE = ("stochastic_rounding(bits=2)", "stochastic_rounding(bits=4, group=1)", "stochastic_rounding", "fp8")
BASES = ('base="mean"', 'base="lowrank", rank=1', "rank=1")
TIES = torch.tensor([0.0, 1.0, 1.0, 3.0], dtype=torch.float64)


def problem(name: str, n: int = 4, d: int = 2) -> tuple[Tensor, Tensor]:
    x, dy = make_problem(name, n, d, 2, generator=torch.Generator().manual_seed(7))
    return x, dy


def stated_variance(estimator: Estimator, x: Tensor, dy: Tensor, scores: Tensor | None) -> float:
    """The closed form; where a row design has none, its enumeration."""
    if isinstance(estimator, ControlVariate):
        _, rest, rest_scores = estimator._split(x, scores, None)
        return stated_variance(estimator.rows, rest, dy, rest_scores)
    try:
        return float(estimator.variance(x, dy, scores=scores))
    except NoClosedForm:
        if not isinstance(estimator, QuantizedRows):
            return enumerate_moments(estimator, x, dy, scores=scores).variance
        sampling = enumerate_moments(estimator.rows, x, dy, scores=scores).variance
        return sampling + float(estimator.rounding_part(x, dy, scores=scores))


def differences(estimator: Estimator, x: Tensor, dy: Tensor, scores: Tensor | None) -> tuple[float, float, float]:
    """Bias relative to Σw, and errors of the closed forms, that of the variance relative to `E‖Ĝ‖²`."""
    found = enumerate_moments(estimator, x, dy, scores=scores)
    assert found.probability == pytest.approx(1.0, abs=1e-11)
    counted = (sampling_scores(x, scores) > 0).double()
    size = float(joint_norms(x, dy).sum()) or 1.0
    bias = float((found.mean - (dy * counted[:, None]).T @ x).norm()) / size
    mean = float((found.mean - estimator.expectation(x, dy, scores=scores)).norm()) / size
    second = found.variance + float(found.mean.square().sum()) or 1.0
    return bias, mean, abs(found.variance - stated_variance(estimator, x, dy, scores)) / second


def assert_exact(estimator: Estimator, x: Tensor, dy: Tensor, scores: Tensor | None = None) -> None:
    errors = differences(estimator, x, dy, scores)
    assert max(errors) <= 1e-10, errors


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("spec", ALONE)
def test_rounding_alone_is_its_closed_form(spec: str, name: str) -> None:
    x, dy = problem(name, d=3)
    for scores in (None, TIES):
        assert_exact(make(spec), x, dy, scores)


@pytest.mark.parametrize("rounding", ROUNDINGS[::3])
@pytest.mark.parametrize("design", DESIGNS)
def test_rounded_rows_are_their_closed_form(design: str, rounding: str) -> None:
    x, dy = problem("heavy_tailed", n=3)
    for k in (1, 2, 3):
        assert_exact(make(f"quantized_rows(rows={design.format(k=k)}, {rounding})"), x, dy)
    estimator = make(f"quantized_rows(rows={design.format(k=2)}, {rounding})")
    assert_exact(estimator, *problem("ties", n=3), TIES[:3])


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("rounding", ROUNDINGS[1:3])
def test_rounded_rows_on_every_family(name: str, rounding: str) -> None:
    x, dy = problem(name)
    for scores in (None, joint_norms(x, dy), TIES, torch.zeros(4)):
        assert_exact(make(f"quantized_rows(rows=wta_crs(budget=2), {rounding})"), x, dy, scores)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("rows", ["{}", "quantized_rows(bits=2, rows={})"])
@pytest.mark.parametrize("design", [DESIGNS[1], DESIGNS[5], *DESIGNS[8:]])
def test_control_variates_are_their_closed_form(design: str, rows: str, base: str) -> None:
    estimator = make(f"control_variate({base}, rows={rows.format(design.format(k=2))})")
    assert_exact(estimator, *problem("gaussian", n=3), TIES[:3])
    assert_exact(estimator, *problem("ties", n=3))


@pytest.mark.parametrize("inner", [*ALONE, "rademacher_sketch(budget=1)", "exact", "random_projection(rank=1)"])
def test_control_variates_of_what_is_no_row_design(inner: str) -> None:
    estimator = make(f"control_variate(rank=1, rows={inner})")
    for name in ("gaussian", "ties"):
        for scores in (None, TIES[:3]):
            assert_exact(estimator, *problem(name, n=3), scores)


def test_control_variates_nest() -> None:
    inner = 'control_variate(base="lowrank", rank=1, rows=quantized_rows(bits=2, rows=crs(budget=2)))'
    assert_exact(make(f'control_variate(base="mean", rows={inner})'), *problem("gaussian", n=3))


@pytest.mark.parametrize("inner", ["pamm(budget=2)", "quantized_rows(bits=2, rows=topk(budget=2))"])
def test_a_biased_inner_estimator_has_its_stated_mean(inner: str) -> None:
    x, dy = problem("gaussian")
    estimator = make(f'control_variate(base="mean", rows={inner})')
    found, size = enumerate_moments(estimator, x, dy), float(joint_norms(x, dy).sum())
    assert float((found.mean - estimator.expectation(x, dy)).norm()) <= 1e-10 * size
    assert float((found.mean - dy.T @ x).norm()) > 1e-3 * size


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("spec", [*ALONE, "quantized_rows(rows=crs(budget=2))", "control_variate(rows=fp8)"])
def test_hardly_any_rows(spec: str, n: int) -> None:
    assert_exact(make(spec), *problem("gaussian", n=n))


def same(a: ExactMoments, b: ExactMoments) -> None:
    torch.testing.assert_close(a.mean, b.mean, rtol=1e-12, atol=1e-12)
    assert a.variance == pytest.approx(b.variance, rel=1e-11, abs=1e-14)


@pytest.mark.parametrize(
    "spec",
    [
        "fp8",
        "stochastic_rounding(bits=2)",
        "quantized_rows(bits=2, rows=crs(budget=2))",
        'quantized_rows(bits=4, rounding="stochastic", rows=systematic(budget=2))',
        "control_variate(rank=1, rows=quantized_rows(bits=2, rows=sampford(budget=2)))",
    ],
)
def test_one_number_at_a_time_is_every_combination(spec: str) -> None:
    x, dy = problem("gaussian", n=2 if "rows" not in spec else 3)
    every = enumerate_moments(make(spec), x, dy, combinations=True)
    apart = enumerate_moments(make(spec), x, dy)
    assert every.outcomes > 2 * apart.outcomes
    same(every, apart)


@pytest.mark.parametrize("rounding", ["stochastic", "dithered"])
def test_against_a_plain_sum_over_all_outcomes(rounding: str) -> None:
    """Two draws, 2-bit codes and errors by their definition, in Python numbers."""
    x, dy = problem("gaussian", n=3)
    p = [0.2, 0.3, 0.5]
    mean, second = torch.zeros(2, 2, dtype=torch.float64), 0.0
    for slots in itertools.product(range(3), repeat=2):
        chance = p[slots[0]] * p[slots[1]]
        rows = torch.stack([x[i] / (2 * p[i]) for i in slots])
        steps = rows.abs().amax(1, keepdim=True) * 2 / 3
        y = dy[list(slots)]
        if rounding == "dithered":
            estimate, errors = y.T @ rows, steps.square().expand_as(rows) / 12
            mean += chance * estimate
            second += chance * float(estimate.square().sum() + (errors * y.square().sum(1, keepdim=True)).sum())
            continue
        places = rows / steps + 1.5
        for ups in itertools.product([0.0, 1.0], repeat=4):
            up = torch.tensor(ups, dtype=torch.float64).reshape(2, 2)
            fraction = places - places.floor()
            likely = chance * float(torch.where(up > 0, fraction, 1 - fraction).prod())
            estimate = y.T @ ((places.floor() + up - 1.5) * steps)
            mean += likely * estimate
            second += likely * float(estimate.square().sum())
    estimator = QuantizedRows(rows=CRS(budget=2), bits=2, rounding=rounding)
    found = enumerate_moments(estimator, x, dy, scores=torch.tensor(p, dtype=torch.float64))
    torch.testing.assert_close(found.mean, mean, rtol=1e-12, atol=1e-12)
    assert found.variance == pytest.approx(second - float(mean.square().sum()), rel=1e-11)


@dataclass(frozen=True)
class Answers:
    """Random choices in front of others, with other plans, counters or numbers."""

    source: Any
    counters: Any = lambda c: c
    numbers: Any = lambda u: u
    plans: Any = lambda p: p

    def plan(self, design: Any, scores: Tensor) -> Any:
        return self.plans(self.source.plan(design, scores))

    def seeded(self) -> tuple[Tensor, Any]:
        seed, source = self.source.seeded()
        return seed, replace(self, source=source)

    def fresh(self, dtype: torch.dtype) -> Any:
        return replace(self, source=self.source.fresh(dtype))

    def uniforms(self, stream: int, counters: Tensor, places: Any = None) -> Tensor:
        return self.numbers(self.source.uniforms(stream, self.counters(counters), places))


class WeightsForgotten(QuantizedRows):
    """Rounds the bare rows."""

    name = "weights_forgotten"

    def keep(self, x, scores, source):
        plans = lambda plan: plan._replace(weights=(plan.weights > 0).double())  # noqa: E731
        return super().keep(x, scores, Answers(source, plans=plans))


class DitherNotSubtracted(QuantizedRows):
    """Reads dithered codes as if they were stochastic: unbiased, and twice the variance."""

    name = "dither_not_subtracted"

    def finish(self, saved, dy, source):
        return super().finish(saved, dy, Answers(numbers=lambda u: torch.full_like(u, 0.5), source=source))


class DitherAdded(QuantizedRows):
    """The wrong sign."""

    name = "dither_added"

    def finish(self, saved, dy, source):
        return super().finish(saved, dy, Answers(numbers=lambda u: 1 - u, source=source))


class DitherShared(QuantizedRows):
    """The same dither in every slot: a row that stands in two has the same error twice."""

    name = "dither_shared"

    def _shared(self, x_columns, source):
        return Answers(counters=lambda c: c % x_columns, source=source)

    def keep(self, x, scores, source):
        return super().keep(x, scores, self._shared(x.shape[1], source))

    def finish(self, saved, dy, source):
        return super().finish(saved, dy, self._shared(saved.columns.shape[0], source))


class OneNumberForAColumn(StochasticRounding):
    """All rows are rounded with the same uniform numbers."""

    name = "one_number_for_a_column"

    def keep(self, x, scores, source):
        return super().keep(x, scores, Answers(counters=lambda c: c % x.shape[1], source=source))


class ToTheNearest(FP8):
    """Rounds without looking at its uniform numbers."""

    name = "to_the_nearest"

    def keep(self, x, scores, source):
        return super().keep(x, scores, Answers(numbers=lambda u: torch.full_like(u, 0.5), source=source))


class UnroundedBase(ControlVariate):
    """The rest is what the base leaves before its coefficients are rounded to 8 bits."""

    name = "unrounded_base"

    def _split(self, x, scores, basis):
        base, rest, rest_scores = super()._split(x, scores, basis)
        whole = stored_base(base, x.dtype) + rest
        return base, whole - (whole - base.mean) @ base.basis @ base.basis.T - base.mean, rest_scores


class MeanNotMasked(ControlVariate):
    """Counts the mean for rows of score 0 as well."""

    name = "mean_not_masked"

    def _split(self, x, scores, basis):
        base, rest, rest_scores = super()._split(x, scores, basis)
        return base._replace(mask=pack_bits(torch.ones(x.shape[0], dtype=torch.bool))), rest, rest_scores


class BaseTwice(ControlVariate):
    """Subtracts the base once and adds it twice."""

    name = "base_twice"

    def contract(self, saved, dy):
        base = Base(*saved[: len(Base._fields)])
        return super().contract(saved, dy) + dy.T @ stored_base(base, dy.dtype)


BIAS, VARIANCE = 0, 2
CRS_TWO = CRS(budget=2)
DEFECTS = (
    (WeightsForgotten(rows=CRS_TWO), BIAS),
    (DitherNotSubtracted(rows=CRS_TWO), VARIANCE),
    (DitherAdded(rows=CRS_TWO, bits=2), VARIANCE),
    (DitherShared(rows=CRS_TWO, bits=2), VARIANCE),
    (OneNumberForAColumn(bits=2), VARIANCE),
    (ToTheNearest(), BIAS),
    (UnroundedBase(rows=CRS_TWO, rank=1), BIAS),
    (MeanNotMasked(rows=CRS_TWO, base="mean"), BIAS),
    (BaseTwice(rows=CRS_TWO, base="mean"), BIAS),
)


@pytest.mark.parametrize(("estimator", "seen"), DEFECTS, ids=lambda v: getattr(v, "name", ""))
@pytest.mark.parametrize("wrapped", [False, True])
def test_planted_defects_are_caught(estimator: Estimator, seen: int, wrapped: bool) -> None:
    """By the mean or by the variance, as they are and inside a control variate; the sound class passes."""
    x, dy = problem("gaussian")
    sound = make(type(estimator).__mro__[1](**vars(estimator)))
    if wrapped:
        estimator, sound = (ControlVariate(rows=e, base="lowrank", rank=1) for e in (estimator, sound))
    assert max(differences(sound, x, dy, TIES)) <= 1e-10
    assert differences(estimator, x, dy, TIES)[seen] > 1e-5


@pytest.mark.parametrize(
    ("estimator", "broken"),
    [
        (make("control_variate(rank=1, rows=quantized_rows(bits=2, rows=wta_crs(budget=0.3)))"), set()),
        (make("fp8"), set()),
        (WeightsForgotten(rows=CRS_TWO), {"unbiased", "closed forms"}),
        (DitherShared(rows=CRS_TWO, bits=2), {"closed forms"}),
        (MeanNotMasked(rows=CRS_TWO, base="mean"), {"unbiased"}),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_the_properties_enumerate_them(
    estimator: Estimator, broken: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_moments = {f"{kind}, by enumeration" for kind in ("unbiased", "closed forms")}
    monkeypatch.setattr(
        checks, "PROPERTIES", {name: entry for name, entry in PROPERTIES.items() if name in of_moments}
    )
    verdicts = {v.name.split(",")[0]: v.status for v in check_estimator(estimator, raises=False)}
    assert verdicts == {kind: "broken" if kind in broken else "holds" for kind in ("unbiased", "closed forms")}


class ElsewherePlaces(QuantizedRows):
    """Says that codes change where they do not."""

    name = "elsewhere"

    def places(self, x, plan):
        return super().places(x, plan) + 0.1


class NotASum(QuantizedRows):
    """What one rounded number adds depends on the others."""

    name = "not_a_sum"

    def finish(self, saved, dy, source):
        found = super().finish(saved, dy, source)
        return found * found.sum()


@pytest.mark.parametrize("cls", [ElsewherePlaces, NotASum])
@pytest.mark.parametrize("rounding", ["stochastic", "dithered"])
def test_roundings_that_are_not_as_declared_are_found(cls: type[QuantizedRows], rounding: str) -> None:
    x, dy = problem("gaussian")
    with pytest.raises(WrongCuts, match="affine between the declared cuts"):
        enumerate_moments(cls(rows=CRS_TWO, bits=2, rounding=rounding), x, dy)


class Sparing(StochasticRounding):
    """Asks for one number per column."""

    name = "sparing"

    def keep(self, x, scores, source):
        return super().keep(x, scores, Answers(counters=lambda c: c[0], source=source))


def test_numbers_for_other_places_are_refused() -> None:
    with pytest.raises(RuntimeError, match=r"\[2\] are asked for to round places \[4, 2\]"):
        enumerate_moments(Sparing(), *problem("gaussian"))


@dataclass(frozen=True, repr=False)
class Noisy(Estimator[Any]):
    """A wrapper from outside that scales the inner estimate by a random sign and a fixed factor."""

    name: ClassVar[str] = "noisy"
    traits: ClassVar = ControlVariate.traits
    random_part: ClassVar[str | None] = "rows"
    rows: Estimator
    draws: bool = False

    def compress(self, x, *, scores=None, generator=None):
        if self.draws:
            torch.rand(1, generator=generator)
        return self.rows.compress(2 * x, scores=scores, generator=generator)

    def contract(self, saved, dy):
        return self.rows.contract(saved, dy) / 2


def test_composites_from_outside_name_their_random_part() -> None:
    x, dy = problem("gaussian")
    same(enumerate_moments(Noisy(CRS_TWO), x, dy), enumerate_moments(CRS_TWO, x, dy))
    with pytest.raises(RuntimeError, match="random numbers of its own"):
        enumerate_moments(Noisy(CRS_TWO, draws=True), x, dy)


class OwnCompress(QuantizedRows):
    name = "own_compress"

    def compress(self, x, *, scores=None, generator=None):
        return super().compress(x, scores=scores, generator=generator)


class OwnContract(QuantizedRows):
    name = "own_contract"

    def contract(self, saved, dy):
        return super().contract(saved, dy)


class OwnRounding(FP8):
    name = "own_rounding"

    def compress(self, x, *, scores=None, generator=None):
        return super().compress(x, scores=scores, generator=generator)


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (OwnCompress(rows=CRS_TWO), "overrides compress: its keep alone"),
        (OwnContract(rows=CRS_TWO), "overrides contract: its finish alone"),
        (OwnRounding(), "overrides compress: its keep alone"),
        (QuantizedRows(rows=make("priority(budget=2)")), "does not define cuts"),
        (ControlVariate(rows=make("priority(budget=2)")), "does not define cuts"),
        (ControlVariate(rows=OwnRounding()), "overrides compress"),
        (ControlVariate(rows=make("prac(rank=2)")), "a random subspace has no finite list"),
    ],
    ids=repr,
)
def test_what_cannot_be_listed_says_why(estimator: Estimator, reason: str) -> None:
    assert reason in str(can_enumerate(estimator))
    with pytest.raises(InputError, match=reason):
        enumerate_moments(estimator, *problem("gaussian"))


def test_more_outcomes_than_the_limit_are_refused() -> None:
    x, dy = problem("gaussian")
    needed = enumerate_moments(estimator := make("quantized_rows(rows=crs(budget=2))"), x, dy).outcomes
    enumerate_moments(estimator, x, dy, limit=needed)
    with pytest.raises(InputError, match=f"limit={needed - 1}"):
        enumerate_moments(estimator, x, dy, limit=needed - 1)
    with pytest.raises(InputError, match="or more on shape"):
        enumerate_moments(estimator, x, dy, combinations=True, limit=4**4)
