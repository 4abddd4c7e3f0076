"""Rows of dY that are zero are left out of dX in the backward pass of a sampled layer."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from wtacrs.estimators import make
from wtacrs.integration.layers.function import sampled_linear


def backward(x: torch.Tensor, weight: torch.Tensor, dy: torch.Tensor) -> tuple[torch.Tensor, int]:
    x = x.clone().requires_grad_()
    y = sampled_linear(x, weight, None, make("wta_crs(budget=0.3)"), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counted:
        y.backward(dy)
    assert x.grad is not None
    return x.grad, counted.get_total_flops()


def test_dx_is_the_exact_one_at_fewer_operations() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(8, 64, 256, generator=generator), torch.randn(512, 256, generator=generator)
    weight.requires_grad_()
    dy = torch.randn(8, 64, 512, generator=generator)
    _, whole = backward(x, weight, dy)
    dy[:, 24:] = 0.0
    found, fewer = backward(x, weight, dy)
    torch.testing.assert_close(found, dy @ weight.detach())
    assert bool((found[:, 24:] == 0).all())
    assert fewer < 0.6 * whole


def test_a_second_derivative_is_that_of_the_whole_product() -> None:
    x, weight = torch.randn(300, 512, requires_grad=True), torch.randn(512, 512, requires_grad=True)
    y = sampled_linear(x, weight, None, make("wta_crs(budget=0.3)"))
    dy = torch.zeros(300, 512)
    dy[:40] = torch.randn(40, 512)
    dy.requires_grad_()
    (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
    (ddy,) = torch.autograd.grad(dx.sum(), dy)
    torch.testing.assert_close(ddy, weight.detach().sum(1).expand(300, 512), rtol=1e-4, atol=1e-4)
