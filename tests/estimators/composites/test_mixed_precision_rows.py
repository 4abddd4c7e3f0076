"""Mixed precision: the slots are the best division, the draw is the twin's, the moments are exact, defects are seen."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import naive_slots
from support.false_alarms import share
from support.naive_sketches import product, transpose
from support.strategies import DTYPES, products
from torch import Tensor

from wtacrs.estimators import (
    HadamardRotation,
    InputError,
    MixedPrecisionRows,
    NoClosedForm,
    joint_norms,
    make,
    saved_bytes,
)
from wtacrs.estimators.composites.hadamard_rotation import rotate, rotate_back
from wtacrs.estimators.composites.mixed_precision_rows import _column_blocks
from wtacrs.estimators.composites.slots import MOST_SLOTS, allot, peak_to_rms, relative_error
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.rows.inclusion import inclusion
from wtacrs.validation.enumeration.exact_moments import enumerate_moments
from wtacrs.validation.problems import PROBLEMS, make_problem
from wtacrs.validation.properties.checks import check_estimator

DESIGNS = ("systematic", "pivotal", "conditional_poisson", "sampford")
seeds = st.integers(0, 2**31)


def problem(seed: int, n: int, d: int, skew: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x * torch.rand(n, 1, generator=generator, dtype=torch.float64) ** skew, torch.randn(
        n, 2, generator=generator, dtype=torch.float64
    )


@given(seeds, st.integers(1, 12), st.data(), st.sampled_from([0.0, 2.0, 8.0]))
def test_slots_are_those_of_the_twin(seed: int, n: int, data: st.DataObject, skew: float) -> None:
    x, _ = problem(seed, n, 3, skew)
    slots = data.draw(st.integers(1, MOST_SLOTS * n))
    scores, spread = sampling_scores(x), peak_to_rms(x, 2)
    assert spread.tolist() == pytest.approx([naive_slots.spread(row, 2) for row in x.tolist()])
    found = allot(scores, spread, slots)
    rows, counts = naive_slots.slots_of(scores.tolist(), spread.tolist(), slots)
    assert int(found.rows) == rows
    assert (1 + found.refinements).tolist() == counts


@given(seeds, st.integers(2, 12), st.data(), st.sampled_from([0.0, 2.0, 8.0]))
def test_no_other_division_is_better(seed: int, n: int, data: st.DataObject, skew: float) -> None:
    """Σ w² (1 + ε(t))/π is not less for another number of refinements spent greedily on certain rows."""
    x, _ = problem(seed, n, 3, skew)
    slots = data.draw(st.integers(1, MOST_SLOTS * n))
    w, m = sampling_scores(x), peak_to_rms(x, None)
    sizes = w * (1 + relative_error(m, 1)).sqrt()

    def cost(rows: int) -> float:
        target = inclusion(sizes, rows)
        p = target.probabilities
        t = torch.ones(n, dtype=torch.int64)
        for _ in range(slots - rows):
            saving = w**2 * (relative_error(m, t) - relative_error(m, t + 1)) * (p >= 1 - 1e-9) * (t < MOST_SLOTS)
            if float(saving.max()) > 0:
                t[saving.argmax()] += 1
        return float((w**2 * (1 + relative_error(m, t)) / p).sum())

    found = allot(w, m, slots)
    chosen = float((w**2 * (1 + relative_error(m, 1 + found.refinements)) / found.target.probabilities).sum())
    assert chosen <= min(cost(rows) for rows in range(1, min(slots, n) + 1)) * (1 + 1e-9)


@settings(max_examples=60)
@given(seeds, st.integers(2, 7), st.data(), st.sampled_from([None, 2]))
def test_equal_to_the_twin(seed: int, n: int, data: st.DataObject, group: int | None) -> None:
    x, dy = problem(seed, n, 3)
    estimator = MixedPrecisionRows(slots=data.draw(st.integers(1, 4 * n)), group=group)
    scores = sampling_scores(x)
    numbers = torch.Generator().manual_seed(seed)
    saved = estimator.compress(x, generator=torch.Generator().manual_seed(seed))
    uniforms = torch.rand(estimator.rows_design(n).uniforms(n), dtype=torch.float64, generator=numbers)
    slots = estimator.slots_for(n)
    weights, rounded = naive_slots.mixed_precision_rows(
        x.tolist(), scores.tolist(), uniforms.tolist(), int(saved.seed), slots, group
    )
    plan = estimator.plan(estimator.allot(x, scores), uniforms)
    assert plan.weights.tolist() == pytest.approx(weights, rel=1e-9)
    assert int(plan.slots.sum()) <= slots
    expected = torch.tensor(product(transpose(dy.tolist()), rounded), dtype=torch.float64)
    scale = float((torch.tensor(weights).double() * joint_norms(x, dy)).sum())
    torch.testing.assert_close(estimator.contract(saved, dy), expected, rtol=1e-9, atol=1e-9 * scale)


SLOTS = (1, 2, 3, 5, 9)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize(
    "slots", [pytest.param(s, marks=[pytest.mark.slow] if s in (1, 3) else []) for s in SLOTS]
)
def test_enumeration_is_the_closed_form(design: str, slots: int) -> None:
    """Every design with every number of slots, and every family of problems with each of both: in thirds."""
    estimator = make("mixed_precision_rows", slots=slots, design=design, group=[None, 1][slots % 2])
    third = (DESIGNS.index(design) + SLOTS.index(slots)) % 3
    for name in list(PROBLEMS)[third::3]:
        x, dy = make_problem(name, 3, 2, 2, generator=torch.Generator().manual_seed(7))
        for scores in (None, torch.tensor([0.0, 1.0, 3.0])):
            assert_exact(estimator, x, dy, scores)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "rows", ["hadamard_rotation(rows={})", "control_variate(rank=1, rows=hadamard_rotation(rows={}))"]
)
@pytest.mark.parametrize(
    "inner", ['mixed_precision_rows(slots=2, design="sampford")', "quantized_rows(bits=2, rows=crs(budget=2))"]
)
def test_rotated_composites_by_enumeration(rows: str, inner: str) -> None:
    for scores in (None, torch.tensor([1.0, 0.0, 3.0])):
        x, dy = make_problem("gaussian", 3, 3, 2, generator=torch.Generator().manual_seed(7))
        assert_exact(make(rows.format(f"hadamard_rotation(rows={inner})")), x, dy, scores)


def assert_exact(estimator: Any, x: Tensor, dy: Tensor, scores: Tensor | None) -> None:
    """Mean and variance by enumeration; the closed form of the variance where the design has one."""
    found = enumerate_moments(estimator, x, dy, scores=scores)
    size = float(joint_norms(x, dy).sum())
    kept = (sampling_scores(x, scores) > 0).double()
    assert found.probability == pytest.approx(1.0, abs=1e-11)
    assert float((found.mean - (dy * kept[:, None]).T @ x).norm()) <= 1e-10 * size
    assert float((found.mean - estimator.expectation(x, dy, scores=scores)).norm()) <= 1e-10 * size
    try:
        stated = float(estimator.variance(x, dy, scores=scores))
    except NoClosedForm:
        assert "systematic" in repr(estimator) or "pivotal" in repr(estimator)
        return
    assert abs(found.variance - stated) <= 1e-10 * (found.variance + size**2)


@dataclass(frozen=True, repr=False)
class Unweighted(MixedPrecisionRows):
    """Rows are not weighed by 1/π."""

    def plan(self, allotment, uniforms):
        found = super().plan(allotment, uniforms)
        return found._replace(weights=(found.weights > 0).double())


@dataclass(frozen=True, repr=False)
class LastDigitLost(MixedPrecisionRows):
    """Refinements are counted and never read."""

    def finish(self, saved, dy, source):
        return super().finish(saved._replace(codes=saved.codes & 0), dy, source)


@dataclass(frozen=True, repr=False)
class Undithered(MixedPrecisionRows):
    """The dither is not subtracted again where the digits are put together."""

    def finish(self, saved, dy, source):
        class Half:
            def uniforms(self, stream, counters, places=None):
                return torch.full(counters.shape, 0.75, dtype=torch.float64)

        return super().finish(saved, dy, Half())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("cls", [Unweighted, LastDigitLost, Undithered])
def test_a_planted_defect_is_a_bias(cls: type[MixedPrecisionRows]) -> None:
    x, dy = problem(3, 3, 2)
    found = enumerate_moments(cls(slots=2), x, dy)
    assert float((found.mean - dy.T @ x).norm()) > 1e-3 * float(joint_norms(x, dy).sum())


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spec", ["mixed_precision_rows(slots=0.7)", "hadamard_rotation(rows=fp8)"])
def test_every_property_holds(spec: str) -> None:
    assert [
        v
        for v in check_estimator(make(spec), level=share("checks: mixed precision", 2), bias=0.5, raises=False)
        if v.status == "broken"
    ] == []


@given(products(), st.sampled_from([1, 3, 0.5, 1.0, 2.5, 8.0]))
def test_every_shape_and_dtype(xy: tuple[Tensor, Tensor], slots: int | float) -> None:
    x, dy = xy
    estimator = MixedPrecisionRows(slots=slots)
    saved = estimator.compress(x, generator=torch.Generator().manual_seed(0))
    found = estimator.contract(saved, dy)
    assert found.isfinite().all()
    n, s = x.shape[0], estimator.slots_for(x.shape[0])
    step = saved.steps.element_size()
    assert saved_bytes(saved) == s * -(-x.shape[1] // 4) + step * min(s, n) + -(-n // 2) + 8


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_slots_are_as_good_as_exact(dtype: torch.dtype) -> None:
    x, dy = problem(0, 30, 16)
    x, dy = x.to(dtype), dy.to(dtype)
    estimator = make("hadamard_rotation(rows=mixed_precision_rows(slots=8.0))")
    found = estimator.contract(estimator.compress(x, generator=torch.Generator().manual_seed(0)), dy)
    size = float(joint_norms(x, dy).sum())
    allowed = 3 * torch.finfo(dtype).eps + 1e-4
    assert float((found.double() - dy.double().T @ x.double()).norm()) <= allowed * size


def test_all_rows_zero_give_zero() -> None:
    estimator = MixedPrecisionRows(slots=1.5)
    assert not estimator.contract(estimator.compress(torch.zeros(6, 3)), torch.ones(6, 2)).any()


def test_rows_of_score_zero_may_hold_anything() -> None:
    x, dy = problem(1, 8, 4)
    scores = torch.ones(8)
    scores[5:] = 0
    x[5:] = torch.inf
    for spec in ("mixed_precision_rows(slots=1.0)", "mixed_precision_rows(slots=0.4)"):
        estimator = make(spec)
        saved = estimator.compress(x, scores=scores, generator=torch.Generator().manual_seed(0))
        assert estimator.contract(saved, dy).isfinite().all()


@given(st.integers(1, 200), seeds)
def test_the_rotation_is_orthogonal(d: int, seed: int) -> None:
    x = torch.randn(5, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(rotate_back(rotate(x)), x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rotate(x) @ rotate(x).T, x @ x.T, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("d", [1, 2, 3, 8, 48, 384, 1000])
def test_the_rotation_spreads_every_feature(d: int) -> None:
    """No number of a rotated unit vector exceeds that of sums of many equal parts."""
    block = 1 << (d.bit_length() - 1)
    rotated = rotate(torch.eye(d, dtype=torch.float64))
    assert float(rotated.abs().max()) <= block**-0.5 * (1 + 1e-12) or block < d
    if d >= 48:
        assert float((d * rotated.abs().amax(1).square()).mean()) < 16


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("spec", "fragment"),
    [
        ("mixed_precision_rows(slots=0)", "slots=0"),
        ("mixed_precision_rows(slots=9.0)", "slots=9.0"),
        ("mixed_precision_rows(slots=True)", "slots=True"),
        ('mixed_precision_rows(slots=1.0, design="crs")', "design='crs'"),
        ("mixed_precision_rows(slots=1.0, group=0)", "group=0"),
        ("hadamard_rotation(rows=3)", "rows=3"),
    ],
)
def test_unusable_fields_are_refused(spec: str, fragment: str) -> None:
    with pytest.raises(InputError) as caught:
        make(spec)
    assert fragment in str(caught.value)


def test_heavy_rows_get_more_bits(generator: torch.Generator) -> None:
    x = torch.randn(100, 16, generator=generator)
    x[:5] *= 1000
    estimator = MixedPrecisionRows(slots=0.5)
    allotment = estimator.allot(x, sampling_scores(x))
    assert int(allotment.refinements[:5].min()) >= 2
    assert int(allotment.refinements[5:].max()) == 0
    assert HadamardRotation(rows=estimator).traits.unbiased


@pytest.mark.parametrize("group", [None, 8])
@pytest.mark.parametrize("slots", [0.6, 2.3])
def test_blocks_of_columns_keep_the_same_codes(group, slots, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large x is rounded and read a few columns at a time, which changes nothing."""
    generator = torch.Generator().manual_seed(3)
    x, dy = torch.randn(20, 37, generator=generator), torch.randn(20, 5, generator=generator)
    estimator = make(f"mixed_precision_rows(slots={slots}, group={group})")
    whole = estimator.compress(x, generator=torch.Generator().manual_seed(1))
    product = estimator.contract(whole, dy)
    monkeypatch.setattr(sys.modules[type(estimator).__module__], "_BLOCK_NUMBERS", 300)
    assert len(_column_blocks(46, 37)) > 5
    blocks = estimator.compress(x, generator=torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(whole, blocks, strict=True))
    torch.testing.assert_close(estimator.contract(blocks, dy), product)
