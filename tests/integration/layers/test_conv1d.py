"""`ApproxConv1D` is `ApproxLinear` of the transposed weight, in all that conversion adds."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from wtacrs.estimators import make, saved_bytes
from wtacrs.integration.layers.conv1d import ApproxConv1D
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.integration.layers.linear_layers import fitting_layers
from wtacrs.integration.measure.capture import capture
from wtacrs.integration.measure.kept_bytes import KeptBytesProbe
from wtacrs.integration.measure.memory import step_memory

SPEC = "crs(budget=0.5)"


@given(
    n=st.integers(1, 12),
    d=st.integers(1, 6),
    m=st.integers(1, 6),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 2**32 - 1),
)
def test_conv1d_is_the_linear_layer_of_the_transposed_weight(
    n: int, d: int, m: int, dtype: torch.dtype, seed: int
) -> None:
    """Output, dX and db are stock's, and dW is the transpose of what the estimator makes of X and dY."""
    torch.manual_seed(seed)
    stock = Conv1D(m, d).to(dtype)
    layer = ApproxConv1D(m, d, estimator=SPEC, min_elements=0).to(dtype)
    layer.load_state_dict(stock.state_dict())
    x = torch.randn(2, n, d, dtype=dtype, requires_grad=True)
    again = x.detach().clone().requires_grad_()
    dy = torch.randn(2, n, m, dtype=dtype)
    out = stock(x)
    out.backward(dy)
    torch.manual_seed(seed)
    out_again = layer(again)
    out_again.backward(dy)
    torch.testing.assert_close(out_again, out)
    torch.testing.assert_close(again.grad, x.grad)
    torch.testing.assert_close(layer.bias.grad, stock.bias.grad)
    torch.manual_seed(seed)
    saved = make(SPEC).compress(x.detach().reshape(2 * n, d))
    assert torch.equal(layer.weight.grad, make(SPEC).contract(saved, dy.reshape(2 * n, m)).t())
    assert layer.weight.grad.shape == (d, m)


@pytest.mark.parametrize("reason", ["eval", "no grad", "frozen", "few", "exact"])
def test_the_stock_path_is_taken_where_nothing_is_estimated(reason: str) -> None:
    torch.manual_seed(0)
    stock = Conv1D(5, 12)
    layer = copy.deepcopy(stock)
    approximate_(layer, "exact" if reason == "exact" else SPEC, min_elements=481 if reason == "few" else 0)
    layer.train(reason != "eval")
    for part in (stock, layer):
        part.weight.requires_grad_(reason != "frozen")
    x = torch.randn(4, 10, 12)
    with torch.set_grad_enabled(reason != "no grad"):
        out, expected = layer(x), stock(x)
    assert torch.equal(out, expected)
    if reason != "no grad":
        out.square().sum().backward()
        expected.square().sum().backward()
        assert reason == "frozen" or torch.equal(layer.weight.grad, stock.weight.grad)


class Model(nn.Module):
    """A linear layer and a Conv1D, and two that share an input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(12, 24), Conv1D(6, 24)
        self.third = Conv1D(6, 24)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        return type("Output", (dict,), {"loss": property(lambda self: self["loss"])})(
            loss=(self.second(hidden) * self.third(hidden) - labels).square().mean()
        )


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"x": torch.randn(4, 10, 12, generator=generator), "labels": torch.zeros(4, 10, 6)}


def test_conversion_of_a_model_and_back() -> None:
    model = Model()
    keys, parameters = list(model.state_dict()), list(model.parameters())
    assert fitting_layers(model, ["*"]) == ["first", "second", "third"]
    assert approximate_(model, SPEC, min_elements=0) == ["first", "second", "third"]
    assert [type(m) for m in (model.first, model.second)] == [ApproxLinear, ApproxConv1D]
    assert "estimator=crs(budget=0.5)" in repr(model)
    assert approximate_(model, "crs(budget=0.25)", min_elements=0) == ["first", "second", "third"]
    assert model.second.estimator == make("crs(budget=0.25)")
    twin = copy.deepcopy(model)
    assert twin.second.context is not model.second.context
    assert restore_(model) == ["first", "second", "third"]
    assert [type(m) for m in (model.first, model.second)] == [nn.Linear, Conv1D]
    assert list(model.state_dict()) == keys
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert vars(model.second).keys() == vars(Conv1D(6, 24)).keys()


def test_two_that_read_one_input_share_its_copy() -> None:
    model = Model()
    approximate_(model, SPEC, min_elements=0)
    found = []
    model.third.register_forward_pre_hook(lambda layer, args: found.append(layer.finds_shared(args[0])))
    model(**batch())
    assert found == [True]


def test_what_it_keeps_is_measured(tmp_path: Path) -> None:
    model = Model()
    captured = capture(model, [batch()], tmp_path / "c.safetensors")
    assert set(captured.layers) == {"first", "second", "third"}
    approximate_(model, SPEC, min_elements=0)
    probe = KeptBytesProbe(model)
    model(**batch()).loss.backward()
    assert probe.found is not None
    expected = saved_bytes(make(SPEC).compress(torch.randn(40, 24)))
    assert probe.found.layers["second"].kept == expected
    restore_(model)
    measured = step_memory(model, batch(), estimator=SPEC, min_elements=0)
    assert measured.converted == 3
    assert {name for entry in measured.saved for name in entry.types} >= {"Linear", "Conv1D"}


def test_a_subclass_is_left_alone() -> None:
    class Special(Conv1D):
        pass

    model = nn.Sequential(Special(4, 4), Conv1D(4, 4))
    assert approximate_(model, SPEC) == ["1"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_as_stock(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    stock = Conv1D(5, 12)
    layer = copy.deepcopy(stock)
    approximate_(layer, "topk(budget=1.0)", min_elements=0)
    x = torch.randn(4, 10, 12)
    with torch.autocast("cpu", dtype):
        out, expected = layer(x), stock(x)
    assert out.dtype == expected.dtype == dtype
    torch.testing.assert_close(out, expected)
    for result in (out, expected):
        result.float().square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, stock.weight.grad, rtol=2e-2, atol=2e-1)
