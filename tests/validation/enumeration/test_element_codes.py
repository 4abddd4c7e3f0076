"""Codes of element-wise functions over all outcomes: dX, the layer below, two layers, and what breaks them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wtacrs.estimators import InputError
from wtacrs.estimators.rounding.derivative_bounds import DERIVATIVE_BOUNDS
from wtacrs.estimators.rounding.element_codes import (
    derivative_grid,
    group_variance,
    variance_of_dw_below,
    variance_of_dx,
)
from wtacrs.validation.enumeration.element_codes import (
    Rounding,
    group_rounding_of,
    moments_of,
    outcomes,
    rounding_of,
)

GRID = derivative_grid(*DERIVATIVE_BOUNDS["GELU"], 4)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def gelu_slope(x: Tensor) -> Tensor:
    return torch.ops.aten.gelu_backward(torch.ones_like(x), x)


def nearest(rounding: Rounding) -> Rounding:
    return rounding._replace(chance=rounding.chance.round())


@pytest.mark.parametrize("bits", [8, 4])
def test_dx_and_the_weight_below(bits: int, generator: torch.Generator) -> None:
    grid = derivative_grid(*DERIVATIVE_BOUNDS["GELU"], bits)
    x, dy, weight = normal(generator, 3, 2), normal(generator, 3, 3), normal(generator, 3, 2)
    slope = gelu_slope(x @ weight.T)
    rounding = rounding_of(slope, grid)
    dx = moments_of(lambda q: dy * q, [rounding])
    assert torch.allclose(dx.mean, dy * slope, atol=1e-14)
    assert dx.total_variance() == pytest.approx(float(variance_of_dx(dy, slope, grid)), rel=1e-9)
    dw = moments_of(lambda q: (dy * q).T @ x, [rounding])
    assert torch.allclose(dw.mean, (dy * slope).T @ x, atol=1e-14)
    assert dw.total_variance() == pytest.approx(float(variance_of_dw_below(x, dy, slope, grid)), rel=1e-9)
    assert dw.weight == pytest.approx(1.0)


@pytest.mark.parametrize("bits", [8, 4])
def test_gated_products(bits: int, generator: torch.Generator) -> None:
    a, b, dy = normal(generator, 2, 3), normal(generator, 2, 3), normal(generator, 2, 3)
    factors = [b * gelu_slope(a), torch.nn.functional.gelu(a)]
    found = moments_of(
        lambda one, two: torch.stack([dy * one, dy * two]), [group_rounding_of(v, bits) for v in factors]
    )
    assert torch.allclose(found.mean, torch.stack([dy * factor for factor in factors]), atol=1e-14)
    formula = sum(float((dy.square() * group_variance(factor, bits)).sum()) for factor in factors)
    assert found.total_variance() == pytest.approx(formula, rel=1e-9)


def stacked(generator: torch.Generator) -> tuple[list[Rounding], Tensor, Tensor, Tensor]:
    a, weight, dy = normal(generator, 1, 4), normal(generator, 4, 4), normal(generator, 1, 4)
    slopes = [gelu_slope(torch.nn.functional.gelu(a) @ weight.T), gelu_slope(a)]
    return [rounding_of(slope, GRID) for slope in slopes], weight, dy, ((dy * slopes[0]) @ weight) * slopes[1]


def test_two_layers_with_codes_of_their_own(generator: torch.Generator) -> None:
    roundings, weight, dy, exact = stacked(generator)
    found = moments_of(lambda q, r: ((dy * q) @ weight) * r, roundings)
    assert torch.allclose(found.mean, exact, atol=1e-14)


def test_two_layers_with_one_random_number_are_biased(generator: torch.Generator) -> None:
    roundings, weight, dy, exact = stacked(generator)
    found = moments_of(lambda q, r: ((dy * q) @ weight) * r, roundings, shared=True)
    assert found.weight == pytest.approx(1.0)
    assert float((found.mean - exact).norm()) > 1e-4 * float(exact.norm())


def test_rounding_to_the_nearest_is_found_biased(generator: torch.Generator) -> None:
    slope, dy = gelu_slope(normal(generator, 2, 3)), normal(generator, 2, 3)
    found = moments_of(lambda q: dy * q, [nearest(rounding_of(slope, GRID))])
    assert float((found.mean - dy * slope).norm()) > 1e-3 * float((dy * slope).norm())


def test_all_outcomes_are_listed_once(generator: torch.Generator) -> None:
    rounding = rounding_of(torch.tensor([0.5, 1.0, 0.03], dtype=torch.float64), GRID)
    found = [(tuple(values[0].tolist()), probability) for values, probability in outcomes(rounding)]
    assert len({values for values, _ in found}) == len(found) == 4
    assert sum(probability for _, probability in found) == pytest.approx(1.0)
    with pytest.raises(InputError, match="at most 200,000"):
        list(outcomes(rounding_of(torch.full((20,), 0.5, dtype=torch.float64), GRID)))
