"""`ApproxLinear`: exact forward, exact dX and db, estimated dW, and the exact path where sampling is pointless."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from support.strategies import DTYPES
from torch import Tensor, nn
from torch.func import functional_call, grad

from wtacrs.estimators import InputError, make, saved_bytes
from wtacrs.integration.layers.function import sampled_linear
from wtacrs.integration.layers.linear import ApproxLinear

SPECS = ("topk(budget=0.3)", "crs(budget=0.3)", "wta_crs(budget=0.3)", 'wta_crs(budget=0.3, winners="optimal")')


def pair(
    bias: bool = True, dtype: torch.dtype = torch.float32, spec: str = SPECS[2]
) -> tuple[nn.Linear, ApproxLinear]:
    torch.manual_seed(0)
    stock = nn.Linear(12, 5, bias=bias, dtype=dtype)
    layer = ApproxLinear(12, 5, bias=bias, dtype=dtype, estimator=spec, min_elements=0)
    layer.load_state_dict(stock.state_dict())
    return stock, layer


def saved_by(run: Any) -> list[Tensor]:
    """Tensors that a computation keeps for its backward pass."""
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return kept


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(40, 12), (4, 10, 12), (2, 2, 10, 12)])
def test_forward_is_bit_identical_and_dx_db_are_exact(
    shape: tuple[int, ...], bias: bool, dtype: torch.dtype
) -> None:
    stock, layer = pair(bias, dtype)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    again = x.detach().clone().requires_grad_()
    out, out_again = stock(x), layer(again)
    assert torch.equal(out, out_again)
    dy = torch.randn_like(out)
    out.backward(dy)
    out_again.backward(dy)
    assert x.grad is not None
    assert again.grad is not None
    torch.testing.assert_close(again.grad, x.grad)
    if bias:
        torch.testing.assert_close(layer.bias.grad, stock.bias.grad)
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == dtype


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(40, 12), (4, 10, 12)])
def test_the_output_may_be_changed_in_place_as_that_of_stock(shape: tuple[int, ...], bias: bool) -> None:
    """Longformer divides its queries so."""
    x, found = torch.randn(shape), []
    for layer in pair(bias):
        output = layer(x)
        output /= 3.0
        output.add_(1.0)
        output.square().sum().backward()
        found.append((output.detach(), layer.bias.grad if bias else torch.zeros(())))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


@pytest.mark.parametrize("spec", SPECS)
def test_gradcheck_of_dx_and_db(spec: str) -> None:
    weight = torch.randn(5, 12, dtype=torch.float64)
    x = torch.randn(3, 4, 12, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, b: sampled_linear(x, weight, b, make(spec)), (x, bias))


def test_gradcheck_of_dw_when_every_row_is_kept() -> None:
    x = torch.randn(3, 4, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    estimator = make("wta_crs(budget=1.0)")
    assert torch.autograd.gradcheck(lambda x, w: sampled_linear(x, w, None, estimator), (x, weight))


@pytest.mark.parametrize("spec", SPECS)
def test_dw_is_what_the_estimator_makes_of_x_and_dy(spec: str) -> None:
    _, layer = pair(spec=spec)
    x, dy = torch.randn(4, 10, 12), torch.randn(4, 10, 5)
    torch.manual_seed(3)
    layer(x).backward(dy)
    torch.manual_seed(3)
    estimator = make(spec)
    expected = estimator.contract(estimator.compress(x.reshape(40, 12)), dy.reshape(40, 5))
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, expected)


def test_only_the_compressed_input_is_kept() -> None:
    _, layer = pair()
    x = torch.randn(4, 10, 12, requires_grad=True)
    kept = saved_by(lambda: layer(x))
    compressed = layer.estimator.compress(x.detach().reshape(40, 12))
    beside_weight = [t for t in kept if t.data_ptr() != layer.weight.data_ptr()]
    assert saved_bytes(tuple(beside_weight)) == saved_bytes(compressed)
    assert saved_bytes(compressed) == 12 * (12 * 4 + 4 + 4)  # 12 of 40 rows, each with an index and a weight
    assert not [t for t in saved_by(lambda: layer(x.detach())) if t.data_ptr() == layer.weight.data_ptr()]


@pytest.mark.parametrize(
    "reason", ["eval", "no grad", "frozen weight", "tiny input", "few rows", "exact", "empty input"]
)
def test_exact_path_keeps_nothing_needless(reason: str) -> None:
    stock, layer = pair()
    x = torch.randn(0 if reason == "empty input" else 4, 10, 12)
    if reason == "eval":
        layer.eval()
    elif reason == "frozen weight":
        layer.weight.requires_grad_(False)
        stock.weight.requires_grad_(False)
        x.requires_grad_()
    elif reason == "tiny input":
        layer.min_elements = x.numel() + 1
    elif reason == "few rows":
        layer.min_rows = x.shape[:-1].numel() + 1
    elif reason == "exact":
        layer.estimator = make("exact")
    with torch.set_grad_enabled(reason != "no grad"):
        state = torch.get_rng_state()
        kept, stock_kept = saved_by(lambda: layer(x)), saved_by(lambda: stock(x))
        assert torch.equal(torch.get_rng_state(), state)
    assert [t.shape for t in kept] == [t.shape for t in stock_kept]
    if reason == "frozen weight":
        assert x.data_ptr() not in [t.data_ptr() for t in kept]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_as_the_stock_layer(dtype: torch.dtype) -> None:
    stock, layer = pair()
    x = torch.randn(4, 10, 12, requires_grad=True)
    again = x.detach().clone().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        out, out_again = stock(x), layer(again)
    assert out_again.dtype == dtype
    assert torch.equal(out, out_again)
    out.float().square().sum().backward()
    out_again.float().square().sum().backward()
    assert x.grad is not None
    assert again.grad is not None
    torch.testing.assert_close(again.grad, x.grad)
    torch.testing.assert_close(layer.bias.grad, stock.bias.grad)
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    assert layer.weight.grad.isfinite().all()


def test_double_precision_is_left_alone_by_autocast() -> None:
    stock, layer = pair(dtype=torch.float64)
    x = torch.randn(4, 12, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(stock(x), layer(x))


def test_functional_gradients_agree_with_backward() -> None:
    _, layer = pair()
    x = torch.randn(4, 10, 12)
    torch.manual_seed(5)
    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    gradients = grad(lambda p: functional_call(layer, p, (x,)).square().sum())(parameters)
    torch.manual_seed(5)
    layer(x).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(gradients[name], parameter.grad)


def test_a_second_derivative_by_the_input_is_exact() -> None:
    stock, layer = pair()
    x = torch.randn(4, 12, requires_grad=True)
    found = []
    for each in (stock, layer):
        (first,) = torch.autograd.grad(each(x).square().sum(), x, create_graph=True)
        found += torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(*found)


COMPILED = """
import torch
from wtacrs.integration.layers.linear import ApproxLinear
layer = ApproxLinear(12, 5, estimator="crs(budget=0.3)", min_elements=0)
compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
x = torch.randn(4, 10, 12)
gradients = []
for _ in range(2):
    layer.zero_grad()
    compiled(x).square().sum().backward()
    gradients.append(layer.weight.grad.clone())
assert not torch.equal(*gradients)
torch.testing.assert_close(compiled(x), layer(x))
"""


@pytest.mark.slow
def test_compiled_layer_draws_anew_at_each_step() -> None:
    """In a process of its own: the signature checks of the tests are nothing to compile.

    Slow, since `test_a_compiled_step_is_the_eager_one` finds two such layers to draw anew too.
    """
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("spec", ["x", 3, None])
def test_an_unusable_spec_names_the_argument(unchecked: None, spec: Any) -> None:
    with pytest.raises(InputError, match=f"^estimator={spec!r}: "):
        ApproxLinear(4, 4, estimator=spec)


def test_the_layer_says_what_it_is() -> None:
    _, layer = pair()
    assert 'estimator=wta_crs(budget=0.3, winners="paper")' in repr(layer)
    assert list(layer.state_dict()) == ["weight", "bias"]
