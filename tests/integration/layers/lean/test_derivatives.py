"""Second derivatives are refused, first ones are not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wtacrs.estimators import InputError
from wtacrs.integration import lean_


def pieces() -> dict[str, nn.Module]:
    return {
        "norm": nn.RMSNorm(8, eps=1e-6),
        "dropout": nn.Dropout(0.5),
        "relu": nn.ReLU(),
        "linear": nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)),
    }


@pytest.mark.parametrize("name", pieces())
def test_a_graph_of_the_backward_pass_is_refused_in_one_line(name: str, generator: torch.Generator) -> None:
    module = nn.Sequential(pieces()[name]).train()
    lean_(module)
    x = torch.randn(5, 8, generator=generator).requires_grad_()
    tensors = [x, *module.parameters()]
    assert all(gradient is not None for gradient in torch.autograd.grad(module(x).sum(), tensors))
    with pytest.raises(
        InputError, match=r"^create_graph=True: a lean model has no second derivative; restore_ the model$"
    ):
        torch.autograd.grad(module(x).sum(), tensors, create_graph=True)


def test_the_stock_path_has_them(generator: torch.Generator) -> None:
    module = nn.Sequential(nn.RMSNorm(8, eps=1e-6)).train()
    lean_(module)
    x = torch.randn(5, 8, generator=generator).requires_grad_()
    (dx,) = torch.autograd.grad(module.eval()(x).sum(), x, create_graph=True)
    assert torch.autograd.grad(dx.sum(), x)[0].abs().sum() > 0
