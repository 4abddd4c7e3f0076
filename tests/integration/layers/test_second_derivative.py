"""dX and db can be differentiated again, exactly; dW says that it cannot, and is never silently 0."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wtacrs.estimators import InputError
from wtacrs.integration.layers.convert import approximate_

SPEC = "crs(budget=0.5)"


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).double()


def x_of(n: int = 12) -> Tensor:
    return torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()


def penalty(model: nn.Module, x: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    return ((gradient.norm(dim=1) - 1) ** 2).mean()


@pytest.mark.parametrize("converted", [["0"], ["2"], ["0", "2"]])
def test_a_gradient_penalty_is_that_of_stock(converted: list[str]) -> None:
    """It differentiates dX by the weights, which are whole; what it does to the biases passes the first layer's X by."""
    stock, model, x = net(), net(), x_of()
    penalty(stock, x).backward()
    approximate_(model, dict.fromkeys(converted, SPEC), min_elements=0)
    penalty(model, x).backward()
    torch.testing.assert_close(model[2].weight.grad, stock[2].weight.grad)
    if "0" not in converted:
        torch.testing.assert_close(model[0].weight.grad, stock[0].weight.grad)


def test_hessians_by_the_input_are_those_of_stock() -> None:
    stock, model, x = net(), net(), x_of(3).detach()
    approximate_(model, SPEC, min_elements=0)
    for of in (torch.autograd.functional.hessian,):
        torch.testing.assert_close(
            of(lambda x: model(x).square().sum(), x), of(lambda x: stock(x).square().sum(), x)
        )


def test_what_differentiates_an_estimate_is_refused() -> None:
    model, x = net(), x_of()
    approximate_(model, SPEC, min_elements=0)
    (dw,) = torch.autograd.grad(model(x).square().sum(), model[0].weight, create_graph=True)
    assert dw.isfinite().all()
    with pytest.raises(
        InputError, match="create_graph=True: a layer with an estimated weight gradient has no second"
    ):
        dw.square().sum().backward()


def test_a_first_derivative_with_a_graph_is_what_it_is_without() -> None:
    found = []
    for graph in (False, True):
        model = net()
        approximate_(model, SPEC, min_elements=0, seed=3)
        found.append(
            torch.autograd.grad(model(x_of()).square().sum(), list(model.parameters()), create_graph=graph)
        )
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
