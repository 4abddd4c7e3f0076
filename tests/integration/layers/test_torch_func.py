"""`torch.func` on converted models: what works, and what is refused in one line; keyword inputs; `nn.DataParallel`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.expected_gradients import layer_biases
from support.misleading_masks import Situation, t5_of_decoder_ids, wrapped_t5
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacrev, jvp, vjp, vmap
from transformers.pytorch_utils import Conv1D

from wtacrs.estimators import InputError
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.conv1d import ApproxConv1D
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.integration.measure.capture import capture

SPEC = "crs(budget=0.5)"
REFUSED = (
    r"torch\.func\.vmap: a layer with an estimated weight gradient cannot be mapped over; .* or restore_ the model"
)


def converted(spec: str | None = SPEC) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    if spec is not None:
        approximate_(model, spec, min_elements=0)
    return model


def loss(model: nn.Module) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    return lambda parameters, x: functional_call(model, parameters, (x,)).square().sum()


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters()}


X = torch.randn(5, 10, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("randomness", ["error", "different", "same"])
def test_gradients_of_examples_are_refused(randomness: str) -> None:
    model = converted()
    f = loss(model)
    with pytest.raises(InputError, match=REFUSED):
        vmap(grad(f), (None, 0), randomness=randomness)(parameters_of(model), X)
    with pytest.raises(InputError, match=REFUSED):
        grad(lambda p: vmap(f, (None, 0), randomness=randomness)(p, X).sum())(parameters_of(model))
    context = ForwardContext.of(model)
    assert context is not None
    assert context._thread.calls == []
    restore_(model)
    assert vmap(grad(f), (None, 0))(parameters_of(model), X)["0.weight"].shape == (5, 8, 12)


def test_a_mapped_ensemble_is_refused() -> None:
    model = converted()
    stacked = {name: torch.stack([p, p + 1]) for name, p in parameters_of(model).items()}
    with pytest.raises(InputError, match=REFUSED):
        vmap(grad(loss(model)), (0, None))(stacked, X)


def derivative_of_gradient(f: Any, p: Any, x: Tensor) -> Any:
    return grad(lambda p: sum(v.square().sum() for v in grad(f)(p, x).values()))(p)


def derivative_along(f: Any, p: Any, x: Tensor) -> Any:
    return jvp(lambda p: grad(f)(p, x), (p,), (p,))


@pytest.mark.parametrize("second", [derivative_of_gradient, derivative_along, lambda f, p, x: hessian(f)(p, x)])
def test_second_derivatives_are_refused(second: Any) -> None:
    """Which would be zero wherever the layer comes in."""
    model = converted()
    f = loss(model)
    with pytest.raises((InputError, RuntimeError), match=r"second derivative|cannot be mapped|jvp"):
        second(f, parameters_of(model), X[0])


def test_second_derivatives_by_the_input_are_refused_too() -> None:
    model = converted()
    f = lambda x: functional_call(model, dict(model.named_parameters()), (x,)).square().sum()  # noqa: E731
    with pytest.raises(InputError, match="has no second derivative of dW; restore_ the model"):
        grad(lambda x: grad(f)(x).square().sum())(X[0])


def test_a_gradient_by_the_input_may_be_differentiated_by_the_weights() -> None:
    """Inside, nothing asks for dW, so that nothing is sampled."""
    found = []
    for model in (converted(), converted(None)):
        f = loss(model)
        found.append(grad(lambda p, f=f: grad(f, 1)(p, X[0]).square().sum())(parameters_of(model)))
    for name, theirs in found[1].items():
        torch.testing.assert_close(found[0][name], theirs, msg=name)


def test_jacobians_of_the_input_are_exact() -> None:
    model, stock = converted(), converted(None)
    ours = jacrev(lambda x: functional_call(model, dict(model.named_parameters()), (x,)))(X[0])
    theirs = jacrev(lambda x: functional_call(stock, parameters_of(stock), (x,)))(X[0])
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("scores", ["row-norms", "by-position"])
@pytest.mark.parametrize("masked_gradient", ["warn", "raise"])
def test_rows_of_a_jacobian_are_estimates_of_one_draw(scores: str, masked_gradient: Any) -> None:
    """As backward passes one after the other; neither watch nor memory keeps what is mapped over."""
    model = converted(None)
    approximate_(model, SPEC, min_elements=0, scores=scores, masked_gradient=masked_gradient)
    context = ForwardContext.of(model)
    assert context is not None
    identity, parameters = torch.eye(3, dtype=torch.float64), list(model.parameters())
    mask = torch.ones(5, 10, dtype=torch.bool)
    mask[:, 6:] = False
    with context.given(source=mask):
        out = (model(X) * mask[..., None]).sum((0, 1))
        batched = torch.autograd.grad(out, parameters, identity, is_grads_batched=True, retain_graph=True)
        assert context.watch._seen == {}
        for number, row in enumerate(identity):
            alone = torch.autograd.grad(out, parameters, row, retain_graph=True)
            for ours, theirs in zip(batched, alone, strict=True):
                torch.testing.assert_close(ours[number], theirs)
        model(X)
    assert context.watch.read() == {}


def test_eval_mode_and_small_inputs_map_as_stock() -> None:
    model, stock = converted(), converted(None)
    expected = vmap(grad(loss(stock)), (None, 0))(parameters_of(stock), X)
    model.eval()
    found = vmap(grad(loss(model)), (None, 0))(parameters_of(model), X)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    model.train()
    approximate_(model, SPEC, min_elements=10**6)
    found = vmap(grad(loss(model)), (None, 0))(parameters_of(model), X)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_gradient_of_a_function_is_that_of_backward() -> None:
    model, other = converted(), converted()
    found = grad(loss(model))(parameters_of(model), X)
    other(X).square().sum().backward()
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, msg=name)
    value, back = vjp(lambda p: loss(model)(p, X), parameters_of(model))
    assert value.shape == ()
    assert back(torch.ones((), dtype=torch.float64))[0].keys() == found.keys()


def test_a_forward_derivative_is_that_of_stock() -> None:
    """It has no use for dW, of which nothing is sampled."""
    model, stock = converted(), converted(None)
    parameters = parameters_of(stock)
    ours, theirs = (jvp(lambda p, m=m: loss(m)(p, X), (parameters,), (parameters,)) for m in (model, stock))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


class Keywords(nn.Module):
    """Calls its layers by keyword."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), Conv1D(3, 8)

    def forward(self, x: Tensor, by_keyword: bool = True) -> Tensor:
        if by_keyword:
            return self.second(x=self.first(input=x)).square().sum()
        return self.second(self.first(x)).square().sum()


def test_inputs_by_keyword_are_inputs(tmp_path: Any) -> None:
    gradients = []
    x = torch.randn(4, 10, 6, generator=torch.Generator().manual_seed(0))
    for by_keyword in (True, False):
        model = Keywords()
        assert approximate_(model, SPEC, min_elements=0, seed=0) == ["first", "second"]
        assert (type(model.first), type(model.second)) == (ApproxLinear, ApproxConv1D)
        model(x, by_keyword).backward()
        gradients.append([p.grad for p in model.parameters()])
        found = capture(model, [{"x": x, "by_keyword": by_keyword}], tmp_path / "c", loss_fn=lambda out: out)
        assert list(found) == ["first#0", "second#0"]
        assert torch.equal(found["first#0"].x, x.reshape(40, 6))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("build", [t5_of_decoder_ids, wrapped_t5])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.filterwarnings("ignore:rows that a mask calls padding")
def test_data_parallel_on_the_cpu_is_unbiased(build: Callable[[], Situation], before: bool) -> None:
    """The wrapper takes any argument; masks are those of the model inside."""
    situation = build()
    if before:
        approximate_(situation.model, SPEC, min_elements=0)
    wrapped = nn.DataParallel(situation.model)
    model: nn.Module = situation.model if before else wrapped
    if not before:
        approximate_(wrapped, SPEC, min_elements=0)

    def step() -> None:
        model.zero_grad()
        situation.through(wrapped).backward()

    for _ in range(2):
        biases = layer_biases(model, step)
        assert len(biases) == 33
        assert max(biases.values()) <= 1e-9
