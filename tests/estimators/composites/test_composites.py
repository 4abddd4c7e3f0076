"""Packed rounding, and composites that wrap another estimator."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.false_alarms import share
from support.strategies import DTYPES, products
from torch import Tensor

from wtacrs.estimators import InputError, joint_norms, make, saved_bytes
from wtacrs.estimators.composites.control_variate import ControlVariate, stored_base
from wtacrs.estimators.composites.recommended import recommended
from wtacrs.estimators.core.packing import pack, rounding_variance, step_sizes, unpack
from wtacrs.validation.statistics.monte_carlo import monte_carlo
from wtacrs.validation.statistics.significance import mean_test, variance_test

COMPOSITES = (
    "quantized_rows(bits=2, rows=crs(budget=0.4))",
    'quantized_rows(bits=4, group=3, rounding="stochastic", rows=wta_crs(budget=0.4))',
    'control_variate(base="mean", rows=crs(budget=0.4))',
    'control_variate(base="lowrank", rank=2, rows=wta_crs(budget=0.4))',
    "control_variate(rank=2, rows=quantized_rows(bits=2, rows=wta_crs(budget=0.4)))",
    "stochastic_rounding(bits=2)",
    "fp8",
)


@given(products(), st.sampled_from([8, 4, 2]), st.sampled_from([None, 1, 2, 3]))
def test_rounding_moves_no_number_by_more_than_a_step(
    xy: tuple[Tensor, Tensor], bits: int, group: int | None
) -> None:
    x, _ = xy
    steps = step_sizes(x, bits, group).repeat_interleave(group or x.shape[1], dim=1)[:, : x.shape[1]]
    for u in (0.0, 0.5, 1 - 2**-53):
        uniforms = torch.full_like(x, u)
        packed = pack(x, bits, group, uniforms)
        n, d = x.shape
        assert packed.codes.shape == (n, -(-d * bits // 8))
        assert packed.steps.shape == (n, 1 if group is None else -(-d // group))
        rounded = unpack(packed, x.shape[1], bits, group, x.dtype)
        assert ((rounded - x).abs() <= steps * (1 + 1e-12)).all()
        dithered = unpack(packed, x.shape[1], bits, group, x.dtype, uniforms)
        assert ((dithered - x).abs() <= steps * (0.5 + 1e-9)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_reach_the_largest_number_in_every_dtype(dtype: torch.dtype) -> None:
    x = (torch.randn(50, 40, generator=torch.Generator().manual_seed(0)) * 1e-3).to(dtype)
    for bits in (8, 4, 2):
        steps = step_sizes(x, bits, None).double()
        reached = steps * (2**bits - 1) / 2 * (1 + 1e-15)  # fp64 steps are not rounded up
        assert (reached >= x.double().abs().amax(1, keepdim=True)).all()


def test_rounding_moments_by_enumeration() -> None:
    """Both outcomes of every number with their probabilities: mean x, variance Δ² f (1 − f)."""
    x = torch.tensor([[0.3, -1.0, 0.45]], dtype=torch.float64)
    for bits in (8, 4, 2):
        steps = step_sizes(x, bits, None)
        place = x / steps + (2**bits - 1) / 2
        fraction = (place - place.floor())[0]
        mean, square = torch.zeros_like(x), 0.0
        for ups in itertools.product([False, True], repeat=3):
            chance = 1.0
            for up, f in zip(ups, fraction.tolist(), strict=True):
                chance *= f if up else 1 - f
            if chance == 0.0:
                continue
            # a number is rounded up exactly if u ≥ 1 − f
            uniforms = torch.tensor(
                [[1 - f / 2 if up else (1 - f) / 2 for up, f in zip(ups, fraction, strict=True)]]
            )
            rounded = unpack(pack(x, bits, None, uniforms.double()), 3, bits, None, torch.float64)
            mean += chance * rounded
            square += chance * float((rounded - x).square().sum())
        torch.testing.assert_close(mean, x, rtol=1e-12, atol=1e-12)
        stated = float(rounding_variance(x, bits, None, dithered=False))
        assert square == pytest.approx(stated, rel=1e-10, abs=1e-24)


@pytest.mark.usefixtures("unchecked")
def test_dithering_over_a_fine_grid_of_dithers() -> None:
    """The error is uniform over one step: mean 0 and Δ²/12, whatever the number."""
    x = torch.tensor([[0.3, -1.0, 0.45, 0.0]], dtype=torch.float64)
    count = 4096
    grid = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    errors = torch.cat(
        [unpack(pack(x, 2, None, u.expand_as(x)), 4, 2, None, torch.float64, u.expand_as(x)) - x for u in grid]
    )
    step = float(step_sizes(x, 2, None))
    assert errors.mean(0).abs().max() < step / count
    torch.testing.assert_close(errors.square().mean(0), torch.full((4,), step**2 / 12).double(), rtol=1e-5, atol=0)
    assert float(rounding_variance(x, 2, None, dithered=True)) == pytest.approx(4 * step**2 / 12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spec", COMPOSITES)
def test_mean_and_variance_are_as_stated(spec: str) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(20, 6, generator=generator, dtype=torch.float64) + 1.0
    dy = torch.randn(20, 4, generator=generator, dtype=torch.float64)
    estimator = make(spec)
    level = share("composites: moments", tests=2 * len(COMPOSITES))
    torch.testing.assert_close(estimator.expectation(x, dy), dy.T @ x)
    test = mean_test(estimator, x, dy, draws=400, level=level, generator=generator)
    assert not test.rejected, test
    variance = variance_test(estimator, x, dy, draws=400, level=level, generator=generator)
    assert not variance.rejected, variance


@given(products(), st.sampled_from(["mean", "lowrank", "mean+lowrank"]))
def test_base_and_rest_add_up_to_x(xy: tuple[Tensor, Tensor], base: str) -> None:
    x, dy = xy
    estimator = ControlVariate(rows=make("exact"), base=base, rank=2)
    scores = joint_norms(x, dy)
    estimate = estimator.contract(estimator.compress(x, scores=scores), dy)
    scale = float(scores.sum()) or 1.0
    assert float((estimate - dy.T @ x).abs().max()) <= 1e-12 * scale


def test_what_the_base_explains_has_no_variance() -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(50, 1, generator=generator) @ torch.randn(1, 8, generator=generator)
    dy = torch.randn(50, 3, generator=generator)
    plain, ranked = make("crs(budget=0.3)"), make('control_variate(base="lowrank", rank=1, rows=crs(budget=0.3))')
    assert float(ranked.variance(x, dy)) < 1e-3 * float(plain.variance(x, dy))
    assert float(make('control_variate(base="mean", rows=crs(budget=0.3))').variance(x + 10, dy)) < 0.05 * float(
        plain.variance(x + 10, dy)
    )


def test_a_basis_kept_by_the_caller_stays_unbiased() -> None:
    generator = torch.Generator().manual_seed(5)
    old, x = torch.randn(30, 6, generator=generator), torch.randn(30, 6, generator=generator)
    dy = torch.randn(30, 3, generator=generator)
    estimator = ControlVariate(rows=make("exact"), base="mean+lowrank", rank=2)
    basis = estimator.make_basis(old)
    torch.testing.assert_close(basis.T @ basis, torch.eye(2), atol=1e-5, rtol=0)
    saved = estimator.compress(x, basis=basis)
    assert torch.equal(saved.basis, basis)
    torch.testing.assert_close(estimator.contract(saved, dy), dy.T @ x, atol=1e-4, rtol=1e-4)


def test_masked_rows_are_in_neither_part() -> None:
    x, dy = torch.randn(20, 6), torch.randn(20, 3)
    scores = joint_norms(x, dy) * (torch.arange(20) < 13)
    estimator = make("control_variate(rank=2, rows=crs(budget=0.5))")
    assert isinstance(estimator, ControlVariate)
    base, rest, rest_scores = estimator._split(x, scores, None)
    assert (stored_base(base, torch.float32)[13:] == 0).all()
    assert (rest[13:] == 0).all()
    assert (rest_scores[13:] == 0).all()


@given(
    st.floats(0.02, 1.0),
    st.integers(1, 400),
    st.sampled_from([16, 100, 384]),
    st.sampled_from([torch.bfloat16, torch.float32, torch.float64]),
    st.sampled_from(["row-norms", "known"]),
)
def test_recommended_stays_within_its_bytes(
    fraction: float, n: int, d: int, dtype: torch.dtype, scores: str
) -> None:
    x = torch.ones(n, d, dtype=dtype)
    if fraction * n < 4:  # the mean alone takes a row
        return
    estimator = recommended(bytes=fraction, shape=(n, d), dtype=dtype, scores=scores)
    assert saved_bytes(estimator.compress(x)) <= fraction * n * d * dtype.itemsize


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ({"bytes": 0.0, "shape": (10, 10)}, "bytes=0.0"),
        ({"bytes": 1.5, "shape": (10, 10)}, "bytes=1.5"),
        ({"bytes": 0.5, "shape": (10,)}, "shape=(10,)"),
        ({"bytes": 0.5, "shape": (10, 10), "dtype": torch.int64}, "dtype=torch.int64"),
        ({"bytes": 0.5, "shape": (10, 10), "scores": "oracle"}, "scores='oracle'"),
        ({"bytes": 0.001, "shape": (10, 10)}, "no room for a single row"),
    ],
)
def test_recommended_refuses(arguments: dict[str, object], fragment: str) -> None:
    with pytest.raises(InputError) as caught:
        recommended(**arguments)  # type: ignore[arg-type]
    assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "fragment"),
    [
        ("quantized_rows(rows=exact)", "must be a row design"),
        ("quantized_rows(rows=crs(budget=0.3), bits=3)", "bits=3"),
        ("quantized_rows(rows=crs(budget=0.3), group=0)", "group=0"),
        ('quantized_rows(rows=crs(budget=0.3), rounding="up")', "rounding='up'"),
        ("control_variate(rows=3)", "rows=3"),
        ('control_variate(rows=crs(budget=0.3), base="median")', "base='median'"),
        ("control_variate(rows=crs(budget=0.3), rank=0)", "rank=0"),
        ("stochastic_rounding(bits=1)", "bits=1"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_unusable_composites_are_refused(spec: str, fragment: str) -> None:
    with pytest.raises(InputError) as caught:
        make(spec)
    assert fragment in str(caught.value)


def test_more_rows_for_the_same_bytes_are_worth_it(generator: torch.Generator) -> None:
    """Rows of equal norm at a tenth of the bytes: the recommended estimator beats the paper's several times over."""
    x = (torch.randn(600, 128, generator=generator) + torch.randn(128, generator=generator)).to(torch.bfloat16)
    dy = torch.randn(600, 16, generator=generator)
    ours = recommended(bytes=0.1, shape=(600, 128), dtype=torch.bfloat16)
    paper = make("wta_crs", budget=int(0.1 * 600 * 256) // 264)
    found = monte_carlo(ours, x, dy, draws=40, generator=generator)
    assert found.variance + 6 * found.variance_error < 0.2 * float(paper.variance(x, dy))
