"""Dithered rows: the draw is the twin's, the moments are exact, the product in int8 has its law, defects are seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.false_alarms import share
from support.strategies import DTYPES, products
from torch import Tensor

from wtacrs.estimators import (
    DitheredRows,
    InputError,
    NoClosedForm,
    joint_norms,
    make,
    sampling_scores,
    saved_bytes,
)
from wtacrs.estimators.composites.widths import widths_for
from wtacrs.estimators.core.counter_rng import CounterStream
from wtacrs.estimators.core.dither import Dither, draw_dither
from wtacrs.estimators.core.packing import unpack_bits
from wtacrs.estimators.kernels import coded_product, plain
from wtacrs.estimators.kernels.grid import grid_of, rotate, rotation_of
from wtacrs.validation.enumeration.exact_moments import enumerate_moments
from wtacrs.validation.enumeration.plans import WrongCuts
from wtacrs.validation.problems import PROBLEMS, make_problem
from wtacrs.validation.properties.checks import check_estimator
from wtacrs.validation.statistics.one_sample import one_sample

DESIGNS = ("systematic", "pivotal", "conditional_poisson", "sampford")
seeds = st.integers(0, 2**31)


def problem(seed: int, n: int, d: int, m: int = 2, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) + 1.0
    dy = torch.randn(n, m, generator=generator, dtype=torch.float64)
    size = 0.3 + torch.rand(n, 1, generator=generator, dtype=torch.float64) ** 2
    return (x / x.norm(dim=1, keepdim=True) * size * d**0.5).to(dtype), dy.to(dtype)


def naive_rows(x: Tensor, bits: int, seed: Tensor) -> Tensor:
    """All rows as they are read again: one number after the other, in double precision."""
    n, d = x.shape
    mean = x.mean(0)
    grid = grid_of(d)
    numbers = CounterStream(seed)
    r = numbers.uniforms(0, torch.arange(n))
    s = numbers.uniforms(1, torch.arange(grid.padded))
    matrix = naive_rotation(d)
    rows = (x - mean) @ matrix
    top = 2**bits - 1
    found = torch.zeros_like(rows)
    for i in range(n):
        groups = [range(a, min(a + grid.size, d)) for a in range(0, d, grid.size)]
        step = max(float(rows[i].abs().max()), 0.0) * 2 / top
        for group in groups:
            peak = max(abs(float(rows[i, j])) for j in group)
            delta = min(math.ceil(peak * 2 / top * 255 / step), 255) * step / 255 if step else 0.0
            for j in group:
                u = (float(r[i]) + float(s[j])) % 1.0
                code = min(max(int((rows[i, j] / delta + top / 2 + u) // 1), 0), top) if delta else 0
                found[i, j] = (code - u + 0.5 - top / 2) * delta
    return found @ matrix.T + mean


def naive_rotation(d: int) -> Tensor:
    """The matrix, written out block by block."""
    signs = [1, -1, -1, 1, 1, 1, -1, 1, -1, 1, 1, -1, -1, -1, 1, -1]
    matrix, start = torch.zeros(d, d, dtype=torch.float64), 0
    for size in [16] * (d // 16) + [s for s in (8, 4, 2, 1) if d % 16 & s]:
        for i in range(size):
            for j in range(size):
                parity = bin(i & j).count("1") % 2
                matrix[start + i, start + j] = signs[i] * (-1) ** parity / size**0.5
        start += size
    return matrix


@pytest.mark.parametrize("d", [1, 3, 15, 16, 23, 64, 100])
def test_the_rotation_is_orthogonal_and_that_of_the_twin(d: int) -> None:
    like = torch.zeros(0, dtype=torch.float64)
    grid = grid_of(d)
    rows = torch.zeros(d, grid.padded, dtype=torch.float64)
    rows[:, :d] = torch.eye(d)
    found = rotate(rows, rotation_of(d, like), grid)
    assert torch.allclose(found[:, :d], naive_rotation(d), atol=1e-15)
    assert float(found[:, d:].abs().sum()) == 0.0
    assert torch.allclose(rotate(found, rotation_of(d, like).back, grid), rows, atol=1e-14)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 6), st.sampled_from([1, 5, 16, 70]), st.sampled_from([2, 4, 8]))
def test_equal_to_the_twin(seed: int, n: int, d: int, bits: int) -> None:
    x, dy = problem(seed, n, d)
    estimator = DitheredRows(slots=bits / 2)
    saved = estimator.compress(x, generator=torch.Generator().manual_seed(seed))
    expected = dy.T @ naive_rows(x, bits, saved.seed)
    torch.testing.assert_close(estimator.contract(saved, dy), expected, rtol=1e-9, atol=1e-9 * float(x.norm()))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("slots", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_enumeration_is_the_closed_form(design: str, slots: int) -> None:
    estimator = make("dithered_rows", slots=slots, design=design, product="float")
    third = DESIGNS.index(design) % 3
    for name in list(PROBLEMS)[third::3]:
        for d, scores in ((2, None), (3, torch.tensor([0.0, 1.0, 3.0]))):
            x, dy = make_problem(name, 3, d, 2, generator=torch.Generator().manual_seed(7))
            assert_exact(estimator, x, dy, scores)


def assert_exact(estimator: DitheredRows, x: Tensor, dy: Tensor, scores: Tensor | None) -> None:
    found = enumerate_moments(estimator, x, dy, scores=scores)
    size = float(joint_norms(x, dy).sum())
    kept = (sampling_scores(x, scores) > 0).double()
    assert found.probability == pytest.approx(1.0, abs=1e-11)
    assert float((found.mean - (dy * kept[:, None]).T @ x).norm()) <= 1e-10 * size
    try:
        stated = float(estimator.variance(x, dy, scores=scores))
    except NoClosedForm:
        assert estimator.design in ("systematic", "pivotal") or estimator.slots > 3
        return
    assert abs(found.variance - stated) <= 1e-10 * (found.variance + size**2)


@settings(max_examples=50)
@given(seeds, st.integers(1, 40), st.integers(1, 40), st.sampled_from([torch.float32, torch.float64]))
def test_dither_is_uniform_in_pairs(seed: int, rows: int, columns: int, dtype: torch.dtype) -> None:
    """u = (r + s) mod 1 exactly, and both numbers lie on the grid where the sum is exact."""
    source = CounterStream(torch.tensor([seed]))
    dither = draw_dither(source, (0, 1), rows, columns, torch.zeros(0, dtype=dtype))
    levels = 2**52 if dtype == torch.float64 else 2**23
    for numbers in dither:
        assert numbers.dtype == dtype
        assert bool(((numbers >= 0) & (numbers < 1) & (numbers.double() * levels % 1 == 0)).all())
    sums = dither.rows.unsqueeze(1) + dither.columns
    whole = (dither.rows.double() * levels).long().unsqueeze(1) + (dither.columns.double() * levels).long()
    assert torch.equal((sums.frac().double() * levels).long(), whole % levels)


@pytest.mark.parametrize("rows", ["independent", "one number for all rows"])
def test_pairs_suffice(rows: str) -> None:
    """Errors of different rows are uncorrelated, and not if the rows share their number (planted)."""
    grid = 60
    numbers = torch.arange(grid, dtype=torch.float64) / grid  # all pairs (r, r'), or all r = r'
    place = torch.tensor([0.3, 0.55], dtype=torch.float64)
    shift = torch.tensor(0.17, dtype=torch.float64)

    def error(p: Tensor, r: Tensor) -> Tensor:
        return 0.5 - 1 / (2 * grid) - torch.frac(p + torch.frac(r + shift))

    first, second = error(place[0], numbers), error(place[1], numbers)
    assert abs(float(first.mean())) < 1e-2
    assert abs(float(second.mean())) < 1e-2
    joint = (first[:, None] * second).mean() if rows == "independent" else (first * second).mean()
    correlated = abs(float(joint - first.mean() * second.mean())) > 1e-3
    assert correlated == (rows != "independent")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("bits", "d", "heavy"),
    [(4, 48, 0), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((2, 70, 8), (4, 48, 8), (2, 70, 0)))],
)
def test_int8_has_the_stated_moments(bits: int, d: int, heavy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What int8 adds, by 500 draws: its mean is 0 and its mean square what the closed form adds."""
    monkeypatch.setattr(coded_product, "HEAVY", heavy)
    x, dy = problem(5, 60, d, 6, torch.float32)
    dy[:5] *= 50.0
    exact, rounded = (make(f'dithered_rows(slots={bits / 2}, product="{p}")') for p in ("float", "int8"))
    stated = float(rounded.variance(x, dy) - exact.variance(x, dy))
    squares, along = int8_errors(exact, rounded, x, dy, 500)
    level = share("dithered rows: int8", 16)
    assert one_sample(along, 0.0).p_value > level
    assert one_sample(squares, stated).p_value > level
    assert one_sample(squares, 1.3 * stated).p_value < level  # so large a deviation would be seen
    if not heavy:
        monkeypatch.setattr(coded_product, "HEAVY", 8)
        assert float(rounded.variance(x, dy) - exact.variance(x, dy)) < 0.5 * stated


def int8_errors(
    exact: DitheredRows, rounded: DitheredRows, x: Tensor, dy: Tensor, draws: int
) -> tuple[list[float], list[float]]:
    """`‖D‖²` and `⟨D, G⟩/‖G‖` of differences D between the products of the same codes in int8 and in fp32."""
    generator, squares, along = torch.Generator().manual_seed(11), [], []
    direction = dy.double().T @ x.double()
    direction /= direction.norm()
    for _ in range(draws):
        saved = exact.compress(x, generator=generator)
        difference = (rounded.contract(saved, dy) - exact.contract(saved, dy)).double()
        squares.append(float(difference.square().sum()))
        along.append(float((difference * direction).sum()))
    return squares, along


@dataclass(frozen=True, repr=False)
class Undithered(DitheredRows):
    """The dither is not subtracted again."""

    def finish(self, saved, dy, source):
        class Half:
            def uniforms(self, stream, counters, places=None):
                return torch.full(counters.shape, 0.75, dtype=torch.float64)

            def offsets(self, stream, counters):
                return source.offsets(stream, counters)

        return super().finish(saved, dy, Half())


@dataclass(frozen=True, repr=False)
class MeanLost(DitheredRows):
    """The part of the mean is left out."""

    def finish(self, saved, dy, source):
        return super().finish(saved._replace(mean=torch.zeros_like(saved.mean)), dy, source)


@dataclass(frozen=True, repr=False)
class SharesRoundedDown(DitheredRows):
    """Steps of groups are a level too small, so that their largest numbers are cut off."""

    def keep(self, x, scores, source):
        saved = super().keep(x, scores, source)
        return saved._replace(shares=(saved.shares.to(torch.int16) - 8).clamp(min=0).to(torch.uint8))


@pytest.mark.usefixtures("unchecked")
def test_a_dither_that_is_not_subtracted_is_found() -> None:
    x, dy = problem(3, 3, 5)
    with pytest.raises(WrongCuts):
        enumerate_moments(Undithered(slots=1.0, product="float"), x, dy)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("cls", [MeanLost, SharesRoundedDown])
def test_a_planted_defect_is_a_bias(cls: type[DitheredRows]) -> None:
    x, dy = problem(3, 3, 5)
    found = enumerate_moments(cls(slots=1.0, product="float"), x, dy)
    assert float((found.mean - dy.T @ x).norm()) > 1e-3 * float(joint_norms(x, dy).sum())


def test_two_sides_need_two_dithers() -> None:
    """All pairs of numbers of a grid: the mean of the product is that of the factors, not with one number for both."""
    grid = torch.arange(200).float() / 200
    numbers = torch.tensor([0.5, 1.3]), torch.tensor([0.5, -2.6])
    rounded = []
    for side in numbers:
        out = torch.empty(200, 2, dtype=torch.int8)
        plain.round_to_int8(side.repeat(200, 1), Dither(grid, torch.zeros(2)), out, torch.empty(200, 2))
        rounded.append(out.double())
    exact = (numbers[0] * numbers[1]).double()
    apart = rounded[0].mean(0) * rounded[1].mean(0)
    together = (rounded[0] * rounded[1]).mean(0)
    assert float((apart - exact).abs().max()) < 0.01
    assert float((together - exact).abs().min()) > 0.1


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spec", ["dithered_rows(slots=0.4)", "dithered_rows(slots=2.5)"])
def test_every_property_holds(spec: str) -> None:
    assert [
        v
        for v in check_estimator(make(spec), level=share("checks: dithered rows", 2), bias=0.5, raises=False)
        if v.status == "broken"
    ] == []


@given(products(), st.sampled_from(DTYPES), st.sampled_from([1, 3, 0.5, 1.0, 1.5, 2.7, 4.0]))
def test_every_shape_and_dtype(xy: tuple[Tensor, Tensor], dtype: torch.dtype, slots: int | float) -> None:
    x, dy = (t.to(dtype) for t in xy)
    if not bool(torch.isfinite(x).all()):
        return
    for precision in ("float", "int8"):
        estimator = DitheredRows(slots=slots, product=precision)
        found = estimator.contract(estimator.compress(x, generator=torch.Generator().manual_seed(0)), dy)
        assert found.shape == (dy.shape[1], x.shape[1])
        assert found.dtype == dtype
        exact = dy.double().T @ x.double()
        assert bool(torch.isfinite(found).all()) or float(exact.abs().max()) > 0.3 * torch.finfo(dtype).max


@pytest.mark.parametrize("scale", [1e-35, 1e-20, 1.0, 1e20, 1e30])
def test_scales(scale: float) -> None:
    """Errors stay those of the numbers, whatever their size."""
    x, dy = problem(1, 40, 70, 3, torch.float32)
    estimator = DitheredRows(slots=4.0, product="float")
    exact = dy.double().T @ (x.double() * scale)
    found = estimator.contract(estimator.compress(x * scale, generator=torch.Generator().manual_seed(0)), dy)
    assert float((found.double() - exact).norm()) < 0.02 * float(exact.norm())


def test_masked_rows_may_hold_anything() -> None:
    x, dy = problem(2, 20, 24, 3, torch.float32)
    scores = torch.ones(20)
    scores[[3, 7, 19]] = 0.0
    spoilt = x.clone()
    spoilt[[3, 7, 19]] = torch.nan
    for slots in (8, 1.0, 1.5, 4.0):
        estimator = DitheredRows(slots=slots)
        one, other = (
            estimator.contract(
                estimator.compress(t, scores=scores, generator=torch.Generator().manual_seed(0)), dy
            )
            for t in (x, spoilt)
        )
        assert torch.equal(one, other)
        assert bool(torch.isfinite(one).all())


@pytest.mark.parametrize("slots", [0.7, 1.0, 2.0, 2.5, 4.0])
def test_bytes_are_those_stated(slots: float) -> None:
    x = torch.randn(1000, 200, dtype=torch.float32).bfloat16()
    k = min(int(slots * 1000), 1000)
    stated = int(slots * 1000) * 256 // 4 + k * (4 + 2) + 3 * 125 + 2 * 200 + 8 + 4
    assert saved_bytes(DitheredRows(slots=slots).compress(x)) == stated


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"slots": 0}, "slots=0 must be an int ≥ 1"),
        ({"slots": 4.5}, r"slots=4.5 must be .* a float in \(0, 4\]"),
        ({"design": "crs"}, "design='crs' must be one of systematic"),
        ({"product": "int4"}, "product='int4' must be one of auto, float, int8"),
        ({"kernels": "cuda"}, "kernels='cuda' must be one of plain, compiled, triton"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        DitheredRows(**{"slots": 1.0, **fields})  # type: ignore[arg-type]


@given(st.integers(1, 200), st.integers(1, 60))
def test_slots_are_spread_evenly(slots: int, live: int) -> None:
    """As many as there are, but for one that would be half of a width, and no row has two widths less than another."""
    found = widths_for(slots, live)
    used = (found.heavy * 2 * found.bits + (found.rows - found.heavy) * found.bits) // 2
    assert used <= slots
    assert used >= min(slots, 4 * live) - (found.bits == 4)
    assert found.rows == min(slots, live)
    assert found.heavy == 0 or found.rows == live


def test_the_heaviest_rows_have_twice_the_bits() -> None:
    x, _ = problem(3, 30, 24)
    estimator = DitheredRows(slots=2.4)
    saved = estimator.compress(x, generator=torch.Generator().manual_seed(0))
    heavy = unpack_bits(saved.heavy, 30)
    sizes = (x - saved.mean).norm(dim=1)
    assert int(heavy.sum()) == 6
    assert float(sizes[heavy].min()) >= float(sizes[~heavy].max())


def test_rows_under_a_floor_take_few_slots() -> None:
    """What a mask calls padding has a score of a thousandth: a few are drawn, real rows take the slots."""
    x, dy = problem(4, 200, 32, 3)
    mask = torch.arange(200) < 80
    scores = torch.where(mask, 1.0, 0.001)
    estimator = DitheredRows(slots=2.0, product="float")
    saved = estimator.compress(x, scores=scores, generator=torch.Generator().manual_seed(0))
    kept, heavy = unpack_bits(saved.kept, 200), unpack_bits(saved.heavy, 200)
    assert int(saved.wanted) == 83  # Σ min(1, s / 0.1 s̄) = 80 + 120 · 0.025
    assert bool(kept[:80].all())
    assert int(kept.sum()) == 83
    assert not bool(heavy.any())  # all have 8 bits
    masked = torch.where(mask[:, None], dy, 0.0)
    found = estimator.contract(saved, masked)
    assert float((found - masked.T @ x).norm()) < 0.02 * float((masked.T @ x).norm())


def test_slots_of_masked_rows_fall_to_the_others() -> None:
    """With half of the rows masked the others have 8 bits in place of 4, in tensors of the same shapes."""
    x, dy = problem(4, 40, 32, 3)
    scores = torch.ones(40)
    scores[20:] = 0.0
    estimator = DitheredRows(slots=2.0, product="float")
    whole, half = (estimator.compress(x, scores=s) for s in (None, scores))
    assert [t.shape for t in whole] == [t.shape for t in half]
    alone = DitheredRows(slots=4.0, product="float")
    assert float(estimator.variance(x, dy, scores=scores)) == pytest.approx(
        float(alone.variance(x[:20], dy[:20])), rel=1e-9
    )


def test_no_closed_form_where_there_is_none() -> None:
    x, dy = problem(1, 12, 16, 2, torch.float32)
    with pytest.raises(NoClosedForm, match="scales of int8 depend on the rows"):
        DitheredRows(slots=0.5, design="sampford", product="int8").variance(x, dy)


def test_codes_do_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, dy = problem(4, 50, 80, 3, torch.float32)
    estimator = DitheredRows(slots=1.6, product="int8")
    whole = estimator.compress(x, generator=torch.Generator().manual_seed(0))
    result = estimator.contract(whole, dy)
    monkeypatch.setattr(plain, "BLOCK_ROWS", 7)
    parts = estimator.compress(x, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    torch.testing.assert_close(estimator.contract(parts, dy), result, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("slots", [0.5, 1.0, 2.5])
def test_no_columns(slots: float) -> None:
    estimator = DitheredRows(slots=slots)
    assert estimator.contract(estimator.compress(torch.zeros(60, 0)), torch.ones(60, 3)).shape == (3, 0)


def test_gradients_that_require_gradients_are_taken_as_numbers() -> None:
    x, dy = problem(1, 60, 24, 3, torch.float32)
    for product in ("float", "int8"):
        estimator = DitheredRows(slots=2.0, product=product)
        saved = estimator.compress(x, generator=torch.Generator().manual_seed(0))
        found = estimator.contract(saved, dy.clone().requires_grad_())
        assert torch.equal(found, estimator.contract(saved, dy))
