"""Row designs: equal to their slow twins, safe at the edges, free of host synchronisation."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import naive
from support.assertions import assert_never_waits
from support.row_plans import checked, coefficients, row_estimator
from support.strategies import DTYPES, products, score_lists
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from wtacrs.estimators import (
    Bernoulli,
    InputError,
    NoClosedForm,
    RowEstimator,
    joint_norms,
    make,
    rows_for,
    sampling_scores,
    saved_bytes,
)

WITH_REPLACEMENT = (
    "crs(budget={budget})",
    "wta_crs(budget={budget})",
    'wta_crs(budget={budget}, winners="optimal")',
    "wta_crs(budget={budget}, winners=0)",
    "wta_crs(budget={budget}, winners=0.5)",
    "uniform(budget={budget}, replacement=True)",
)
WITHOUT_REPLACEMENT = (
    "uniform(budget={budget})",
    "bernoulli(budget={budget}, reserve=0.0)",
    "bernoulli(budget={budget})",
    "systematic(budget={budget})",
    'systematic(budget={budget}, order="rows")',
    "pivotal(budget={budget})",
    'pivotal(budget={budget}, order="rows")',
    "conditional_poisson(budget={budget})",
    "sampford(budget={budget})",
    "priority(budget={budget})",
)
SPECS = ("topk(budget={budget})", *WITH_REPLACEMENT, *WITHOUT_REPLACEMENT)


def slots(estimator: RowEstimator, n: int) -> int:
    """Rows that are stored; `bernoulli` has some in reserve."""
    return estimator.slots(n) if isinstance(estimator, Bernoulli) else rows_for(estimator.budget, n)


def stated_variance(estimator: RowEstimator, x: Tensor, dy: Tensor) -> float | None:
    try:
        return float(estimator.variance(x, dy))
    except NoClosedForm:
        return None


@given(score_lists(), st.data())
def test_topk_equals_its_twin(scores: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(scores)))
    s = checked(scores)
    plan = row_estimator("topk(budget={budget})", k).draw(s)
    assert coefficients(plan, len(scores)) == naive.topk(s.tolist(), k)


@given(score_lists(), st.data())
def test_crs_equals_its_twin(scores: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(scores)))
    s = checked(scores)
    u = torch.rand(
        k, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 2**31))), dtype=torch.float64
    )
    plan = row_estimator("crs(budget={budget})", k).plan(s, u)
    assert coefficients(plan, len(scores)) == pytest.approx(naive.crs(s.tolist(), u.tolist()), rel=1e-9)


@given(score_lists(), st.data())
def test_wta_crs_equals_its_twin(scores: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(scores)))
    winners = data.draw(st.one_of(st.sampled_from(["paper", "optimal"]), st.integers(0, k - 1)))
    s = checked(scores)
    u = torch.rand(
        k, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 2**31))), dtype=torch.float64
    )
    estimator = make("wta_crs", budget=k, winners=winners)
    assert isinstance(estimator, RowEstimator)
    fast = coefficients(estimator.plan(s, u), len(scores))
    assert fast == pytest.approx(naive.wta_crs(s.tolist(), u.tolist(), winners), rel=1e-9)


@pytest.mark.parametrize("spec", SPECS)
@given(score_lists(min_rows=2), st.data())
def test_rows_of_score_zero_are_never_touched(spec: str, scores: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(scores) - 1))
    s = checked(scores)
    estimator = row_estimator(spec, k)
    plan = estimator.draw(s, torch.Generator().manual_seed(data.draw(st.integers(0, 2**31))))
    assert plan.indices.shape == plan.weights.shape == (slots(estimator, len(scores)),)
    assert (s[plan.indices] > 0).all()
    assert plan.weights.isfinite().all()
    assert (plan.weights >= 0).all()


@pytest.mark.parametrize("spec", SPECS[1:])
def test_uniform_numbers_at_the_ends_of_the_interval_stay_inside(spec: str) -> None:
    s = checked([0.0, 3.0, 1e-9, 1.0, 0.0, 0.0])
    below_one = math.nextafter(1.0, 0.0)
    for u in (0.0, below_one):
        estimator = row_estimator(spec, 3)
        plan = estimator.plan(s, torch.full((estimator.uniforms(6),), u, dtype=torch.float64))
        assert set(plan.indices.tolist()) <= {1, 2, 3}
        assert plan.weights.isfinite().all()


@pytest.mark.parametrize("spec", [*WITH_REPLACEMENT[1:3], *WITHOUT_REPLACEMENT])
def test_every_positive_row_is_kept_when_they_fit(spec: str, generator: torch.Generator) -> None:
    """Winners that hold all the mass: the tail is empty and the product exact."""
    s = checked([0.0, 5.0, 0.0, 2.0, 1.0, 0.0, 0.0])
    assert coefficients(row_estimator(spec, 4).draw(s, generator), 7) == [0, 1, 0, 1, 1, 0, 0]
    assert coefficients(row_estimator(spec, 3).draw(s, generator), 7) == [0, 1, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("spec", SPECS)
def test_all_rows_at_full_budget(spec: str, generator: torch.Generator) -> None:
    x, dy = torch.randn(9, 4, generator=generator), torch.randn(9, 3, generator=generator)
    estimator = row_estimator(spec, 1.0)
    estimate = estimator.contract(estimator.compress(x, generator=generator), dy)
    same = torch.allclose(estimate, dy.T @ x, atol=1e-5)
    assert same == estimator.traits.exact_at_full_budget
    variance = stated_variance(estimator, x, dy)
    assert variance is None or (variance == 0.0) == same


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_rows(spec: str, n: int, generator: torch.Generator) -> None:
    x, dy = torch.randn(n, 4, generator=generator), torch.randn(n, 3, generator=generator)
    estimator = row_estimator(spec, 0.3)
    estimate = estimator.contract(estimator.compress(x, generator=generator), dy)
    assert estimate.shape == (3, 4)
    assert estimate.isfinite().all()
    if n < 2:
        torch.testing.assert_close(estimate, dy.T @ x)
        assert (stated_variance(estimator, x, dy) or 0.0) == pytest.approx(0.0, abs=1e-9)
        torch.testing.assert_close(estimator.expectation(x, dy), (dy.T @ x).double())


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_of_the_result_is_that_of_the_product(spec: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=generator).to(dtype)
    dy = torch.randn(40, 5, generator=generator).to(dtype)
    estimator = row_estimator(spec, 0.3)
    saved = estimator.compress(x, generator=generator)
    assert saved.rows.dtype == dtype
    assert saved.weights.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert estimator.contract(saved, dy).dtype == dtype
    per_row = 6 * dtype.itemsize + 4 + saved.weights.element_size()
    assert saved_bytes(saved) == slots(estimator, 40) * per_row


def test_fp16_weights_do_not_overflow() -> None:
    """A weight of 10⁵ times a gradient of 10 leaves fp16, their product with a small row does not."""
    n = 100_000
    x = torch.full((n, 1), 1e-4, dtype=torch.float16)
    dy = torch.full((n, 1), 10.0, dtype=torch.float16)
    estimator = make("crs(budget=1)")
    assert estimator.contract(estimator.compress(x), dy).item() == pytest.approx(100.0, rel=1e-2)


def test_a_light_tail_keeps_its_proportions() -> None:
    """Tail rows 10¹² times lighter than the winner are still drawn in proportion to their scores."""
    s = checked([1e12, 3.0, 1.0])
    estimator = make("wta_crs(budget=2, winners=1)")
    assert isinstance(estimator, RowEstimator)
    for u, row, weight in ((0.10, 2, 4.0), (0.24, 2, 4.0), (0.26, 1, 4 / 3), (0.99, 1, 4 / 3)):
        plan = estimator.plan(s, torch.tensor([0.5, u], dtype=torch.float64))
        assert plan.indices.tolist() == [0, row]
        assert plan.weights.tolist() == pytest.approx([1.0, weight], rel=1e-9)


def test_fixed_winners_must_leave_room_for_the_tail() -> None:
    with pytest.raises(InputError, match="winners=3 must be below the number of kept rows, k = 3 of n = 10"):
        make("wta_crs(budget=0.3, winners=3)").compress(torch.ones(10, 2))
    make("wta_crs(budget=1.0, winners=3)").compress(torch.ones(3, 2))  # every row is kept: no tail to draw


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spec", [*SPECS, "exact"])
def test_shapes_that_do_not_fit_are_refused(spec: str) -> None:
    estimator = make(spec.format(budget=0.3))
    saved = estimator.compress(torch.ones(10, 2))
    with pytest.raises(InputError, match="rows"):
        estimator.contract(saved, torch.ones(11, 3))
    with pytest.raises(InputError, match="2 dimensions"):
        estimator.contract(saved, torch.ones(10))
    with pytest.raises(InputError, match="2 dimensions"):
        estimator.compress(torch.ones(2, 5, 3))
    with pytest.raises(InputError, match="float16"):
        estimator.compress(torch.ones(10, 2, dtype=torch.int64))
    with pytest.raises(InputError, match="inner axis"):
        estimator.matmul(torch.ones(3, 4), torch.ones(5, 2))
    with pytest.raises(InputError, match="same number of rows"):
        estimator.variance(torch.ones(10, 2), torch.ones(9, 2))


@pytest.mark.parametrize("spec", [*SPECS, "exact"])
@given(xy=products())
def test_matmul_is_contract_with_the_oracles_scores(spec: str, xy: tuple[Tensor, Tensor]) -> None:
    x, dy = xy
    estimator = make(spec.format(budget=0.5))
    a = estimator.matmul(dy.T, x, generator=torch.Generator().manual_seed(1))
    b = estimator.compress(x, scores=joint_norms(x, dy), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(a, estimator.contract(b, dy))


@pytest.mark.parametrize("spec", [*SPECS, "exact"])
def test_works_without_values(spec: str) -> None:
    """FakeTensorMode raises on any `.item()`, and so on any host synchronisation."""
    estimator = make(spec.format(budget=0.3))
    with FakeTensorMode():
        x, dy, scores = torch.empty(50, 6), torch.empty(50, 4), torch.empty(50)
        for given_scores in (None, scores):
            saved = estimator.compress(x, scores=given_scores)
            assert estimator.contract(saved, dy).shape == (4, 6)


COMPILED = """
import torch
from wtacrs.estimators import make
torch.manual_seed(0)
for spec in {specs!r}:
    torch._dynamo.reset()
    estimator = make(spec)
    compiled = torch.compile(lambda x, dy: estimator.contract(estimator.compress(x), dy), fullgraph=True,
                             backend="aot_eager")
    x, dy = torch.randn(50, 6), torch.randn(50, 4)
    # a design of one uniform number has few samples: two draws may agree
    draws = [compiled(x, dy) for _ in range(8)]
    assert all(draw.shape == (4, 6) and draw.isfinite().all() for draw in draws)
    assert all(torch.equal(draws[0], draw) for draw in draws) == estimator.traits.deterministic, spec
    try:
        compiled(torch.full((50, 6), float("nan")), dy)
    except RuntimeError as error:
        assert "finite" in str(error)
    else:
        assert spec == "exact", spec
"""


ONE_OF_EACH = {spec.split("(")[0]: spec.format(budget=0.3) for spec in SPECS}


@pytest.mark.parametrize(
    "names",
    [
        ("wta_crs", "systematic"),
        pytest.param(tuple(ONE_OF_EACH), marks=pytest.mark.slow),
    ],
    ids=["two", "all"],
)
def test_compiles_without_a_graph_break(names: tuple[str, ...]) -> None:
    """In a process of its own: the signature checks of the tests are nothing to compile."""
    specs = [*(ONE_OF_EACH[name] for name in names), "exact"]
    done = subprocess.run([sys.executable, "-c", COMPILED.format(specs=specs)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.cuda
@pytest.mark.parametrize("spec", [*SPECS, "exact"])
def test_cuda_never_waits_for_the_host(spec: str) -> None:
    assert_never_waits(make(spec.format(budget=0.3)))


@pytest.mark.parametrize("spec", [SPECS[0], *WITH_REPLACEMENT])
def test_a_million_rows(spec: str, generator: torch.Generator) -> None:
    x = torch.randn(1_000_000, 1, generator=generator)
    plan = row_estimator(spec, 0.001).draw(sampling_scores(x), generator)
    assert plan.indices.shape == (1000,)
    assert int(plan.indices.max()) < 1_000_000
    assert plan.weights.isfinite().all()
    assert (plan.weights >= 1.0).all()
