"""The second stage is exact by enumeration given what is stored, its parts are consistent, defects are seen."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.false_alarms import share
from support.strategies import DTYPES, products
from torch import Tensor

from wtacrs.estimators import (
    InputError,
    NoClosedForm,
    RowPlan,
    Subsampled,
    joint_norms,
    make,
    row_norms,
    sampling_scores,
    saved_bytes,
)
from wtacrs.estimators.composites import widths
from wtacrs.estimators.composites.subsampled import SecondStage, first_stage, least_rows
from wtacrs.estimators.core.stored_pairs import StoredPairs
from wtacrs.estimators.rows.inclusion import inclusion
from wtacrs.validation.enumeration.plans import listed_plans
from wtacrs.validation.enumeration.sources import GivenPlan
from wtacrs.validation.enumeration.weighted_moments import WeightedMoments
from wtacrs.validation.properties.checks import check_estimator
from wtacrs.validation.statistics.one_sample import one_sample

INSIDE = (
    "exact",
    "topk(budget=4)",
    "crs(budget=4)",
    "wta_crs(budget=4)",
    "bernoulli(budget=3)",
    "systematic(budget=4)",
    "quantized_rows(rows=systematic(budget=4), bits=2)",
    'quantized_rows(rows=crs(budget=4), bits=4, group=3, rounding="stochastic")',
    'dithered_rows(slots=2.0, product="float")',
    'dithered_rows(slots=8, product="float")',
    'dithered_rows(slots=4, product="float")',
)
DESIGNS = ("systematic", "pivotal", "conditional_poisson", "sampford")
LIMIT = 200_000


def problem(n: int = 5, d: int = 7, m: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) + 0.5
    dy = torch.randn(n, m, generator=generator, dtype=torch.float64)
    dy = (
        dy
        * torch.linspace(-1.5, 1.0, n, dtype=torch.float64).exp()[torch.randperm(n, generator=generator)][:, None]
    )
    return x.to(dtype), dy.to(dtype)


def compressed(estimator: Subsampled, x: Tensor, seed: int = 3, scores: Tensor | None = None) -> Any:
    return estimator.compress(x, scores=scores, generator=torch.Generator().manual_seed(seed))


def second_moments(estimator: Subsampled, inner: Any, dy: Tensor) -> WeightedMoments:
    """Over all outcomes of the second stage."""
    stage = estimator.second_stage(inner, dy)
    assert stage is not None
    found = WeightedMoments()
    for plan, probability in listed_plans(stage.design, stage.scores, LIMIT):
        found.add(estimator.contract_plan(inner, dy, stage, plan), probability)
    return found


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("inside", INSIDE)
def test_the_second_stage_is_exact_given_what_is_stored(inside: str, design: str) -> None:
    x, dy = problem(n=4 if design == "pivotal" else 5)
    dy[2] = 0.0
    estimator = Subsampled(make(inside), rows=2, design=design)
    saved = compressed(estimator, x)
    inner, _ = first_stage(saved)
    found = second_moments(estimator, inner, dy)
    size = float(joint_norms(x, dy).sum())
    assert float((found.mean - estimator.of.contract(inner, dy)).norm()) <= 1e-10 * size
    try:
        stated = float(estimator.conditional_variance(saved, dy))
    except NoClosedForm:
        assert design in ("systematic", "pivotal")
        return
    assert abs(found.total_variance() - stated) <= 1e-10 * size**2


@pytest.mark.usefixtures("unchecked")
def test_both_stages_together_have_the_stated_mean_and_the_sum_of_both_variances() -> None:
    x, dy = problem(n=4)
    first = make("sampford(budget=3)")
    estimator = Subsampled(first, rows=2, design="sampford")
    whole, added = WeightedMoments(), 0.0
    for plan, probability in listed_plans(first, sampling_scores(x), LIMIT):
        inner = first.keep(x, sampling_scores(x), GivenPlan(plan))
        inside = second_moments(estimator, inner, dy)
        whole.add(inside.mean, probability, inside.total_variance())
        added += probability * float(estimator.conditional_variance(with_seed(estimator, x, inner), dy))
    size = float(joint_norms(x, dy).sum())
    assert float((whole.mean - estimator.expectation(x, dy)).norm()) <= 1e-10 * size
    assert whole.total_variance() == pytest.approx(float(first.variance(x, dy)) + added, rel=1e-9)
    with pytest.raises(NoClosedForm, match="second stage depends on what the first one draws"):
        estimator.variance(x, dy)


def with_seed(estimator: Subsampled, x: Tensor, inner: Any) -> Any:
    return type(compressed(estimator, x))(*inner, torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize("inside", ["exact", "topk(budget=4)"])
def test_a_first_stage_that_draws_nothing_leaves_a_closed_form(inside: str) -> None:
    x, dy = problem()
    estimator = Subsampled(make(inside), rows=3, design="sampford")
    before = torch.get_rng_state()
    stated = float(estimator.variance(x, dy))
    assert torch.equal(before, torch.get_rng_state())
    found = second_moments(estimator, estimator.of.compress(x), dy)
    assert stated == pytest.approx(found.total_variance(), rel=1e-9)
    if inside == "exact":
        oracle = make("sampford(budget=3)").variance(x, dy, scores=joint_norms(x, dy))
        assert stated == pytest.approx(float(oracle), rel=1e-9)


class Unweighted(Subsampled):
    """Pairs that are drawn are not weighted."""

    def contract_plan(self, inner: Any, dy: Tensor, stage: SecondStage, plan: RowPlan) -> Tensor:
        return super().contract_plan(inner, dy, stage, plan._replace(weights=(plan.weights > 0).double()))


class OtherWeights(Subsampled):
    """Drawn by the pairs, weighted by the π of the stored rows."""

    def contract_plan(self, inner: Any, dy: Tensor, stage: SecondStage, plan: RowPlan) -> Tensor:
        sizes = row_norms(self._pairs.stored_rows(inner).rows)
        p = inclusion(sizes / sizes.amax(), stage.design.budget).probabilities
        weights = torch.where(plan.weights > 0, 1.0 / p[plan.indices].clamp(min=1e-3), 0.0)
        return super().contract_plan(inner, dy, stage, plan._replace(weights=weights))


class DropsLight(Subsampled):
    """Takes light pairs for pairs of norm 0."""

    def second_stage(self, inner: Any, dy: Tensor) -> SecondStage | None:
        stage = super().second_stage(inner, dy)
        assert stage is not None
        return stage._replace(scores=torch.where(stage.scores < 0.3, 0.0, stage.scores))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("broken", [Unweighted, OtherWeights, DropsLight])
def test_planted_defects_are_seen(broken: type[Subsampled]) -> None:
    x, dy = problem()
    for inside in ("uniform(budget=4)", 'dithered_rows(slots=2.0, product="float")'):
        estimator = broken(make(inside), rows=2, design="sampford")
        inner = estimator.of.compress(x, generator=torch.Generator().manual_seed(0))
        error = second_moments(estimator, inner, dy).mean - estimator.of.contract(inner, dy)
        assert float(error.norm()) > 1e-3 * float(joint_norms(x, dy).sum())


@dataclass(frozen=True, repr=False)
class OtherSizes(type(make("systematic(budget=4)"))):  # type: ignore[misc]
    """Norms that leave the weights out, times anything positive: draws worse, but without bias."""

    def slot_norms(self, saved: Any, dy: Tensor) -> Tensor:
        return super().slot_norms(saved, dy) / saved.weights.double() * torch.linspace(0.5, 2.0, 4).double()


@pytest.mark.usefixtures("unchecked")
def test_any_positive_norms_are_without_bias() -> None:
    x, dy = problem()
    variances = []
    for first in (make("systematic(budget=4)"), OtherSizes(budget=4)):
        estimator = Subsampled(first, rows=2, design="sampford")
        inner = first.compress(x, generator=torch.Generator().manual_seed(0))
        found = second_moments(estimator, inner, dy)
        assert float((found.mean - first.contract(inner, dy)).norm()) <= 1e-10 * float(joint_norms(x, dy).sum())
        variances.append(found.total_variance())
    assert variances[1] > 1.05 * variances[0]


@pytest.mark.parametrize("inside", INSIDE)
def test_slots_are_those_of_the_whole(inside: str) -> None:
    x, dy = problem(n=12, d=70)
    of = make(inside)
    assert isinstance(of, StoredPairs)
    saved = of.compress(x, generator=torch.Generator().manual_seed(1))
    k = of.pair_slots(12)
    stored = of.stored_rows(saved)
    whole, nothing = (
        of.contract(saved, dy),
        of.contract_slots(saved, dy, torch.zeros(0, dtype=torch.int64), dy[0, :0]),
    )
    pairs = dy.index_select(0, stored.indices).T @ stored.rows
    assert stored.rows.shape == (k, 70)
    assert torch.allclose(of.contract_slots(saved, dy, torch.arange(k), dy.new_ones(k)), whole, rtol=1e-12)
    assert torch.allclose(nothing + pairs, whole, rtol=1e-9, atol=1e-10)
    norms = row_norms(stored.rows) * row_norms(dy.index_select(0, stored.indices))
    found = of.slot_norms(saved, dy)
    assert torch.equal(found > 0, norms > 0)
    ratio = found[norms > 0] / norms[norms > 0]
    assert 0.6 < float(ratio.min()) <= float(ratio.max()) < 1.6
    if not inside.startswith(("quantized", "dithered")):
        assert torch.allclose(found, norms, rtol=1e-12)


@pytest.mark.parametrize("inside", INSIDE)
def test_as_many_rows_as_slots_are_the_estimator_inside(inside: str) -> None:
    x, dy = problem(n=12)
    for rows in (1.0, 12, 100):
        estimator = Subsampled(make(inside), rows=rows)
        saved = compressed(estimator, x)
        inner, _ = first_stage(saved)
        assert torch.equal(estimator.contract(saved, dy), estimator.of.contract(inner, dy))
        assert saved_bytes(saved) == saved_bytes(inner) + 8


def test_pairs_of_norm_zero_are_never_drawn_and_all_others_where_they_fit() -> None:
    x, dy = problem(n=12)
    dy[3:] = 0.0
    for inside in ("exact", 'dithered_rows(slots=2.0, product="float")'):
        estimator = Subsampled(make(inside), rows=4)
        saved = compressed(estimator, x)
        whole = estimator.of.contract(first_stage(saved)[0], dy)
        assert torch.allclose(estimator.contract(saved, dy), whole, rtol=1e-12)
    dy[:] = 0.0
    assert float(estimator.contract(saved, dy).abs().max()) == 0.0


@pytest.mark.parametrize("slots", [8, 18, 2.0])
def test_without_a_look_at_the_values_slots_of_both_widths_are_the_same(
    slots: int | float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, dy = problem(n=12, d=20)
    estimator = Subsampled(make("dithered_rows", slots=slots, product="float"), rows=5)
    saved = compressed(estimator, x)
    found = estimator.contract(saved, dy)
    monkeypatch.setattr(widths, "has_values", lambda _: False)
    assert torch.allclose(estimator.contract(saved, dy), found, rtol=1e-12, atol=1e-12)


def test_a_draw_is_a_function_of_the_seed() -> None:
    x, dy = problem(n=12)
    estimator = Subsampled(make("exact"), rows=3)
    one, same, other = (compressed(estimator, x, seed) for seed in (0, 0, 1))
    before = torch.get_rng_state()
    first = estimator.contract(one, dy)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, estimator.contract(one, dy))
    assert torch.equal(first, estimator.contract(same, dy))
    assert not torch.equal(first, estimator.contract(other, dy))


def test_what_is_not_finite_gives_nan() -> None:
    x, dy = problem(n=12)
    dy[4, 0] = torch.inf
    for rows in (3, "auto"):
        for inside in ("uniform(budget=6)", "exact", "dithered_rows(slots=2.0)"):
            estimator = Subsampled(make(inside), rows=rows)
            saved = compressed(estimator, x)
            kept = estimator._pairs.stored_rows(first_stage(saved)[0]).indices.tolist()
            found = estimator.contract(saved, dy)
            assert bool(torch.isfinite(found).all()) == (4 not in kept)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12), st.floats(0.0, 4.0))
def test_the_rule_finds_enough_rows_and_not_many_more(norms: list[float], allowed: float) -> None:
    v = torch.tensor(norms, dtype=torch.float64)
    v = torch.where(v < 1e-6, 0.0, v)
    k = int(least_rows(v, torch.tensor(allowed, dtype=torch.float64)))
    assert 0 <= k <= len(norms)

    def added(rows: int) -> float:
        if rows < 1:
            return 0.0 if float(v.sum()) == 0.0 else math.inf
        p = inclusion(v, rows).probabilities
        return float(torch.where(p > 0, (1.0 / p.clamp(min=1e-300) - 1.0) * v.square(), 0.0).sum())

    assert added(k) <= allowed + 1e-9
    assert k == 0 or added(k - 1) > allowed - 1e-9


@pytest.mark.parametrize(
    "inside", ["uniform(budget=0.5)", "sampford(budget=0.5)", 'dithered_rows(slots=2.0, product="float")']
)
def test_auto_adds_no_more_than_half(inside: str) -> None:
    """On pairs in independent directions, where the products that the rule leaves out are small."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 64, generator=generator, dtype=torch.float64)
    dy = torch.randn(300, 48, generator=generator, dtype=torch.float64)
    dy *= torch.randn(300, 1, generator=generator, dtype=torch.float64).mul(1.5).exp()
    estimator = Subsampled(make(inside), rows="auto", design="sampford")
    first = float(estimator.of.variance(x, dy))
    for seed in range(3):
        saved = compressed(estimator, x, seed)
        stage = estimator.second_stage(first_stage(saved)[0], dy)
        assert stage is not None
        assert stage.design.budget < 0.8 * estimator._pairs.pair_slots(300)
        estimate = float(estimator._pairs.variance_estimate(first_stage(saved)[0], dy))
        assert 0.3 * estimate < float(estimator.conditional_variance(saved, dy)) < 0.6 * estimate
        if inside.startswith("dithered"):
            assert estimate == pytest.approx(first, rel=1e-3)


@pytest.mark.parametrize("inside", ["exact", "uniform(budget=0.5)", "dithered_rows(slots=2.0)"])
def test_auto_multiplies_all_where_little_can_be_left_out(inside: str) -> None:
    x, _ = problem(n=300, d=64)
    dy = torch.randn(300, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dy = dy / dy.norm(dim=1, keepdim=True)
    estimator = Subsampled(make(inside), rows="auto")
    saved = compressed(estimator, x)
    inner, _ = first_stage(saved)
    assert estimator.second_stage(inner, dy) is None
    assert torch.equal(estimator.contract(saved, dy), estimator.of.contract(inner, dy))


def test_the_estimate_of_the_first_variance_has_the_mean_that_is_stated() -> None:
    x, dy = problem()
    first, scores = make("sampford(budget=3)"), sampling_scores(x)
    p = inclusion(scores, 3).probabilities
    stated = float(((1.0 / p - 1.0) * joint_norms(x, dy).square()).sum())
    mean = 0.0
    for plan, probability in listed_plans(first, scores, LIMIT):
        mean += probability * float(first.variance_estimate(first.keep(x, scores, GivenPlan(plan)), dy))
    assert mean == pytest.approx(stated, rel=1e-9)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "inside",
    [
        "uniform(budget=0.5)",
        pytest.param('dithered_rows(slots=1.5, product="float")', marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("rows", [0.3, "auto"])
def test_the_mean_of_the_whole_estimate(inside: str, rows: float | str) -> None:
    """Along a fixed direction, 800 draws of both stages."""
    x, dy = problem(n=40, d=20)
    level = share("subsampled: mean", 4)
    exact = dy.T @ x
    estimator, generator = Subsampled(make(inside), rows=rows), torch.Generator().manual_seed(8)
    along = [
        float(
            (estimator.contract(estimator.compress(x, generator=generator), dy) * exact).sum() / exact.norm() ** 2
        )
        for _ in range(800)
    ]
    assert one_sample(along, 1.0).p_value > level


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spec", ["subsampled(of=dithered_rows(slots=2.5), rows=0.4)", "subsampled(of=exact)"])
def test_every_property_holds(spec: str) -> None:
    found = check_estimator(make(spec), level=share("checks: subsampled", 2), bias=0.5, raises=False)
    assert [v for v in found if v.status == "broken"] == []


@given(products(), st.sampled_from(DTYPES), st.sampled_from(INSIDE), st.sampled_from([1, 3, 0.5, "auto"]))
def test_every_shape_and_dtype(xy: tuple[Tensor, Tensor], dtype: torch.dtype, inside: str, rows: Any) -> None:
    x, dy = (t.to(dtype) for t in xy)
    if not bool(torch.isfinite(x).all()):
        return
    estimator = Subsampled(make(inside), rows=rows)
    found = estimator.contract(compressed(estimator, x), dy)
    assert found.shape == (dy.shape[1], x.shape[1])
    assert found.dtype == dtype


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"rows": 0}, r"rows=0 must be a float in \(0, 1\]"),
        ({"rows": 1.5}, "rows=1.5 must be"),
        ({"rows": True}, "rows=True must be"),
        ({"rows": "all"}, "rows='all' must be"),
        ({"design": "crs"}, "design='crs' must be one of systematic"),
        ({"of": make("gaussian_sketch(budget=0.3)")}, "must be an estimator with stored pairs"),
        ({"of": "exact"}, "must be an estimator with stored pairs"),
    ],
)
def test_refuses(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Subsampled(**{"of": make("exact"), **fields})


@pytest.mark.usefixtures("unchecked")
def test_refuses_a_dy_of_another_length() -> None:
    x, dy = problem(n=12)
    for inside in INSIDE:
        estimator = Subsampled(make(inside), rows=1)
        with pytest.raises(InputError, match="rows"):
            estimator.contract(compressed(estimator, x), dy[:7])


COMPILED = """
import torch
from wtacrs.estimators import make
torch.manual_seed(0)
for inside in ("systematic(budget=0.5)", "dithered_rows(slots=2.5)"):
    torch._dynamo.reset()
    estimator = make(f"subsampled(of={inside}, rows=0.4)")
    x, dy = torch.randn(24, 16), torch.randn(24, 3)
    saved = estimator.compress(x)
    compiled = torch.compile(estimator.contract, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(saved, dy), estimator.contract(saved, dy), rtol=1e-4, atol=1e-4)
"""


@pytest.mark.slow
def test_the_backward_pass_compiles_in_one_graph() -> None:
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
