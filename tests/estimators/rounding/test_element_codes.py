"""Codes of element-wise functions: bounds, levels, the law of the rounding, and what is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from wtacrs.estimators import InputError
from wtacrs.estimators.rounding import element_codes
from wtacrs.estimators.rounding.derivative_bounds import DERIVATIVE_BOUNDS
from wtacrs.estimators.rounding.element_codes import (
    GROUP,
    DerivativeGrid,
    GroupCodes,
    code_bytes,
    decode,
    derivative_grid,
    dither,
    encode,
    encode_dithered,
    group_codes,
    group_codes_dithered,
    group_values,
    group_variance,
    numbers_of_pieces,
    variance,
    variance_of_dw_below,
    variance_of_dx,
)

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU": torch.relu,
    "GELU": F.gelu,
    "GELU (tanh)": lambda x: F.gelu(x, approximate="tanh"),
    "SiLU": F.silu,
    "quick GELU": lambda x: x * torch.sigmoid(1.702 * x),
    "Mish": F.mish,
    "softplus": F.softplus,
    "hardswish": F.hardswish,
}
ALL_NUMBERS = torch.arange(-(2**15), 2**15).to(torch.int16)
BITS = pytest.mark.parametrize("bits", [8, 4])


def derivative(name: str, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    FUNCTIONS[name](leaf).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def test_every_function_is_looked_at() -> None:
    assert FUNCTIONS.keys() == DERIVATIVE_BOUNDS.keys()


@pytest.mark.parametrize("name", DERIVATIVE_BOUNDS)
def test_bounds_are_met_and_not_passed(name: str) -> None:
    low, high = DERIVATIVE_BOUNDS[name]
    found = derivative(name, torch.linspace(-40.0, 40.0, 800_001, dtype=torch.float64))
    assert float(found.min()) == pytest.approx(low, abs=1e-4 if name == "hardswish" else 1e-8)
    assert float(found.max()) == pytest.approx(high, abs=1e-4 if name == "hardswish" else 1e-8)
    assert low - 1e-14 <= float(found.min())
    assert float(found.max()) <= high + 1e-14


@BITS
@pytest.mark.parametrize("name", DERIVATIVE_BOUNDS)
def test_levels_reach_from_bound_to_bound_and_hold_0_and_1(name: str, bits: int) -> None:
    low, high = DERIVATIVE_BOUNDS[name]
    levels = derivative_grid(low, high, bits).levels
    assert len(levels) == 2**bits
    assert bool((levels.diff() > 0).all())
    assert float(levels[0]) <= low + 1e-15
    assert float(levels[-1]) >= high - 1e-15
    assert {0.0, 1.0} <= {float(level) for level in levels}


def test_eight_bits_have_even_steps_and_four_have_not() -> None:
    for bounds in (DERIVATIVE_BOUNDS["GELU"], DERIVATIVE_BOUNDS["SiLU"]):
        assert derivative_grid(*bounds, 8).is_even
        assert not derivative_grid(*bounds, 4).is_even


@BITS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_what_is_saturated_or_passes_is_exact(bits: int, dtype: torch.dtype, generator: torch.Generator) -> None:
    grid = derivative_grid(*DERIVATIVE_BOUNDS["GELU"], bits)
    x = (torch.rand(1001, generator=generator) > 0.5).to(dtype)
    for number in (-(2**15), -1, 0, 2**15 - 1):
        codes = encode_dithered(x, grid, lambda n, number=number: torch.full((n,), number, dtype=torch.int16))
        assert torch.equal(decode(codes, grid, x), x)
    assert float(variance(x, grid).max()) == 0.0


@BITS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_mean_and_variance_over_all_random_numbers(bits: int, dtype: torch.dtype) -> None:
    grid = derivative_grid(*DERIVATIVE_BOUNDS["GELU"], bits)
    values = torch.tensor([-0.1289, -0.03, 1e-3, 0.31, 0.5, 0.9999, 1.05, 1.1289], dtype=dtype)
    for value in values:
        every = value.expand(2**16).contiguous()
        given_numbers = ALL_NUMBERS.split(element_codes._PIECE)
        numbers = iter(given_numbers)
        found = decode(
            encode_dithered(every, grid, lambda _, numbers=numbers: next(numbers)), grid, every.double()
        )
        step = float(grid.levels.diff().max())
        assert abs(float(found.mean() - value.double())) <= 1.01 * step * 2.0**-16
        assert float(found.var(correction=0)) == pytest.approx(
            float(variance(value, grid)), abs=step**2 * 2.0**-15
        )
        assert len(found.unique()) <= 2


@BITS
def test_mean_and_variance_of_groups_over_all_random_numbers(bits: int, generator: torch.Generator) -> None:
    values = torch.randn(GROUP, generator=generator, dtype=torch.float64) * 7.0
    total, squares = torch.zeros(GROUP, dtype=torch.float64), torch.zeros(GROUP, dtype=torch.float64)
    order = torch.stack([ALL_NUMBERS.roll(977 * i) for i in range(GROUP)])
    for numbers in order.T[::64].contiguous():  # 1,024 evenly spread numbers for every element
        kept = group_codes_dithered(values, bits, lambda _, numbers=numbers: numbers)
        found = group_values(kept, bits, values)
        total += found
        squares += (found - values).square()
    step = float(kept.steps)
    assert float((total / 1024 - values).abs().max()) <= step * 2.0**-9
    assert torch.allclose(squares / 1024, group_variance(values, bits), atol=step**2 * 2.0**-8)


@BITS
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=200), st.integers(0, 2**31))
def test_groups_hold_any_numbers_within_a_step(bits: int, numbers: list[float], seed: int) -> None:
    values = torch.tensor(numbers)
    kept = group_codes(values, bits, torch.Generator().manual_seed(seed))
    found = group_values(kept, bits, values)
    steps = kept.steps.float().repeat_interleave(GROUP)[: len(values)]
    assert bool(((found - values).abs() <= steps * (1 + 1e-5) + 1e-30).all())
    assert torch.equal(found[values == 0], values[values == 0])
    assert sum(t.numel() * t.element_size() for t in kept) == code_bytes(len(values), bits, grouped=True)


@BITS
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=70), st.integers(0, 2**31))
def test_codes_are_neighbouring_levels(bits: int, numbers: list[float], seed: int) -> None:
    values = 1.2578 * torch.tensor(numbers, dtype=torch.float64) - 0.1289
    grid = derivative_grid(*DERIVATIVE_BOUNDS["GELU"], bits)
    codes = encode(values, grid, torch.Generator().manual_seed(seed))
    assert codes.numel() == code_bytes(len(values), bits)
    found = decode(codes, grid, values)
    levels = grid.levels
    places = torch.searchsorted(levels, values, right=True)
    lower, upper = levels[(places - 1).clamp(min=0)], levels[places.clamp(max=len(levels) - 1)]
    assert bool((torch.isclose(found, lower, atol=1e-12) | torch.isclose(found, upper, atol=1e-12)).all())


@BITS
def test_pieces_and_strides_do_not_matter(
    bits: int, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    monkeypatch.setattr(element_codes, "_PIECE", 2 * GROUP)
    grid = derivative_grid(0.0, 1.0, bits)
    x = grid.levels[torch.randint(2**bits, (37, 23), generator=generator)].float().t()
    assert not x.is_contiguous()
    assert torch.allclose(decode(encode(x, grid, generator), grid, x), x, atol=1e-6)
    kept = group_codes(x, bits, generator, of=lambda a, b: a * b, beside=torch.full_like(x, 3.0))
    steps = kept.steps.float().max()
    assert float((group_values(kept, bits, x) - 3.0 * x).abs().max()) <= float(steps) * 1.001
    dy = torch.randn(x.shape, generator=generator)
    assert torch.allclose(group_values(kept, bits, dy, times=True), dy * group_values(kept, bits, x), atol=1e-5)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 4.0])
def test_levels_at_0_and_1_are_better_than_even_ones(sigma: float) -> None:
    low, high = DERIVATIVE_BOUNDS["GELU"]
    quantiles = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    values = derivative("GELU", torch.special.ndtri(quantiles) * sigma)
    step = (high - low) / 15
    fraction = ((values - low) / step) % 1.0
    even = (step**2 * fraction * (1.0 - fraction)).mean()
    ours = variance(values, derivative_grid(low, high, 4)).mean()
    assert float(ours / even) == pytest.approx({1.0: 0.94, 2.0: 0.69, 4.0: 0.36}[sigma], abs=0.01)


def test_closed_forms_by_hand() -> None:
    grid = derivative_grid(0.0, 1.0, 4)
    values, dy = torch.tensor([[0.5, 1.0]], dtype=torch.float64), torch.tensor([[2.0, 9.0]])
    single = (0.5 - 7 / 15) * (8 / 15 - 0.5)
    assert float(variance_of_dx(dy, values, grid)) == pytest.approx(4.0 * single)
    x = torch.tensor([[3.0, 4.0]])
    assert float(variance_of_dw_below(x, dy, values, grid)) == pytest.approx(25.0 * 4.0 * single)


def test_dither_is_the_generators_and_fits(generator: torch.Generator) -> None:
    numbers = dither(10_001, torch.device("cpu"), generator)
    assert numbers.shape == (10_001,)
    assert abs(float(numbers.double().mean())) < 2**15 * 8 / math.sqrt(3 * 10_001)
    assert not torch.equal(numbers, dither(10_001, torch.device("cpu"), generator))


def of_coarse_numbers(
    grid: DerivativeGrid, dy: Tensor, moved: list[int], monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    """Σ dY q of two pieces of two elements, for every outcome of numbers that are multiples of 2¹²: a subgroup."""
    monkeypatch.setattr(element_codes, "_PIECE", 2)
    steps = torch.tensor([3.25, 7.5, 3.25, 9.8125], dtype=torch.float64)
    values = grid.levels[steps.long()] + (steps % 1.0) * float(grid.levels[4] - grid.levels[3])
    found = []
    for one, other, move in product(range(16), range(16), moved):
        parts = iter([[one, other], [move]])
        monkeypatch.setattr(
            element_codes,
            "dither",
            lambda *_, parts=parts: ((torch.tensor(next(parts)) - 8) * 2**12).to(torch.int16),
        )
        found.append((dy * decode(encode(values, grid, None), grid, values)).sum())
    draws = torch.stack(found)
    exact = float((dy * values).sum())
    law = float(variance_of_dx(dy, values, grid))
    return torch.stack([draws.mean() - exact, draws.var(correction=0) - law]) / law


@BITS
def test_elements_of_different_pieces_have_the_variance_of_independent_ones(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = derivative_grid(0.0, 1.0, bits)
    dy = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    off = of_coarse_numbers(grid, dy, list(range(16)), monkeypatch)
    assert float(off.abs().max()) <= 1e-9
    broken = of_coarse_numbers(grid, dy, [8], monkeypatch)  # numbers of the first piece used again as they are
    assert float(broken[0].abs()) <= 1e-9
    assert float(broken[1].abs()) > 0.1


def test_numbers_of_pieces_are_moved_around_the_circle(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(element_codes, "_PIECE", 64)
    numbers = numbers_of_pieces(64 * 3 + 5, torch.device("cpu"), generator)
    first, *others = [numbers(count) for count in (64, 64, 64, 5)]
    moves = [(other.int() - first[: len(other)].int()) % 2**16 for other in others]
    assert all(len(move.unique()) == 1 for move in moves)
    assert len({int(move[0]) for move in moves}) == 3


@BITS
def test_tensors_without_values_of_several_pieces_have_codes(bits: int) -> None:
    grid = derivative_grid(0.0, 1.0, bits)
    elements = 3 * element_codes._PIECE + 7
    with FakeTensorMode():
        x = torch.empty(elements)
        assert encode(x, grid, None).shape == (code_bytes(elements, bits),)
        kept = group_codes(x, bits, None)
        assert sum(t.numel() * t.element_size() for t in kept) == code_bytes(elements, bits, grouped=True)
        assert group_values(kept, bits, x).shape == x.shape


def test_bad_input_is_refused(unchecked: None) -> None:
    with pytest.raises(InputError, match="bits=3 must be 8 or 4"):
        derivative_grid(0.0, 1.0, 3)
    with pytest.raises(InputError, match="low ≤ 0 and high ≥ 1"):
        derivative_grid(0.1, 1.0, 8)
    with pytest.raises(InputError, match="leave no step between 0 and 1"):
        derivative_grid(-1e6, 1.0, 4)
    with pytest.raises(InputError, match="bits=True"):
        group_codes(torch.ones(3), True, None)
    grid = derivative_grid(0.0, 1.0, 4)
    with pytest.raises(InputError, match="must be equal"):
        variance_of_dx(torch.ones(2), torch.ones(3), grid)
    with pytest.raises(InputError, match="rows"):
        variance_of_dw_below(torch.ones(2, 1), torch.ones(3, 1), torch.ones(3, 1), grid)


def test_nothing_at_all() -> None:
    grid, x = derivative_grid(0.0, 1.0, 4), torch.ones(0)
    assert decode(encode(x, grid, None), grid, x).shape == (0,)
    kept = group_codes(x, 8, None)
    assert isinstance(kept, GroupCodes)
    assert group_values(kept, 8, x).shape == (0,)
