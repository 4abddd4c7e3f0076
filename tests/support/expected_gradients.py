"""The mean over draws of a whole model's step, layer by layer, in closed form: exact, without a draw to average over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from wtacrs.estimators import Estimator, joint_norms, row_norms
from wtacrs.integration.layers import estimated_weight_grad, function
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad


class ExpectedGradient(NamedTuple):
    """The mean of a layer's estimates in one step, summed over its calls, and what it should be.

    Attributes:
        mean: E dW under the scores that the layer sampled by.
        exact: dYᵀX.
        size: Σ ‖x_i‖‖y_i‖, for layers whose rows cancel.
    """

    mean: Tensor
    exact: Tensor
    size: float

    @property
    def bias(self) -> float:
        """‖E dW − dYᵀX‖ relative to ‖dYᵀX‖; to a millionth of the size where rows cancel even further."""
        return float((self.mean - self.exact).norm()) / max(float(self.exact.norm()), 1e-6 * self.size, 1e-300)

    @property
    def slope(self) -> float:
        """⟨E dW, dYᵀX⟩ / ‖dYᵀX‖², which is 1 without bias."""
        return float((self.mean * self.exact).sum() / self.exact.square().sum())

    def plus(self, other: ExpectedGradient) -> ExpectedGradient:
        """Of both calls together."""
        return ExpectedGradient(self.mean + other.mean, self.exact + other.exact, self.size + other.size)


class _Draw(NamedTuple):
    kept: Any
    estimator: Estimator
    scores: Tensor


@dataclass
class _Call:
    """One sampled call of a layer: x, the draw that it uses, and dY once the backward pass has come by."""

    layer: str
    x: Tensor
    draw: _Draw | None = None
    dy: Tensor | None = None

    def see(self, dy: Tensor) -> None:
        self.dy = dy.detach().reshape(-1, dy.shape[-1]).clone()


@dataclass
class _Spy:
    """Takes the place of what the layers call, and goes on to it."""

    calls: list[_Call] = field(default_factory=list)
    _running: list[_Call] = field(default_factory=list)
    _draws: dict[int, _Draw] = field(default_factory=dict)

    def forward_sampled(self, original: Any) -> Any:
        def spied(layer: EstimatedWeightGrad, input: Tensor, weight: Tensor) -> Tensor:
            call = _Call(layer.path, input.detach().reshape(-1, input.shape[-1]).clone())
            self._running.append(call)
            try:
                output: Tensor = original(layer, input, weight)
            finally:
                self._running.pop()
            self.calls.append(call)
            if output.requires_grad:
                output.register_hook(call.see)
            return output

        return spied

    def compressed(self, original: Any) -> Any:
        def spied(estimator: Estimator, x: Tensor, *, scores: Tensor | None = None, **others: Any) -> Any:
            kept = original(estimator, x, scores=scores, **others)
            rows = x.detach().reshape(-1, x.shape[-1])
            draw = _Draw(kept, estimator, row_norms(rows) if scores is None else scores.clone())
            self._draws[id(kept)] = draw  # the draw holds it: no other object gets its number
            self._running[-1].draw = draw
            return kept

        return spied

    def sampled_linear(self, original: Any) -> Any:
        def spied(*args: Any, **others: Any) -> Tensor:
            output: Tensor = original(*args, **others)
            if others.get("kept") is not None:  # of another layer that reads the input, maybe
                self._running[-1].draw = self._draws[id(others["kept"])]
            return output

        return spied


@contextmanager
def _spying() -> Iterator[_Spy]:
    spy = _Spy()
    places: list[tuple[Any, str, Callable[[Any], Any]]] = [
        (EstimatedWeightGrad, "forward_sampled", spy.forward_sampled),
        (estimated_weight_grad, "sampled_linear", spy.sampled_linear),
        (estimated_weight_grad, "compressed", spy.compressed),
        (function, "compressed", spy.compressed),
    ]
    with ExitStack() as stack:
        for owner, name, spied in places:
            stack.enter_context(patch.object(owner, name, spied(getattr(owner, name))))
        yield spy


def expected_gradients(model: nn.Module, step: Callable[[], Any]) -> dict[str, ExpectedGradient]:
    """What the estimates of every layer that samples in a step are on average, given what was drawn in earlier steps.

    Args:
        model: converted, in double precision, with estimators that know their expectation. Layers that keep one copy of
            an input together, that run several times or that checkpointing runs again are seen as they are.
        step: one forward and backward pass.

    Returns:
        By layer, those that sampled and got a gradient.
    """
    assert all(p.dtype == torch.float64 for p in model.parameters()), "differences to 1e-9 need double precision"
    with _spying() as spy:
        step()
    found: dict[str, ExpectedGradient] = {}
    for call in spy.calls:
        if call.dy is None:
            continue
        assert call.draw is not None, f"{call.layer} got a gradient and has kept nothing"
        mean = call.draw.estimator.expectation(call.x, call.dy, scores=call.draw.scores)
        entry = ExpectedGradient(mean, call.dy.t() @ call.x, float(joint_norms(call.x, call.dy).sum()))
        before = found.get(call.layer)
        if before is not None:
            entry = before.plus(entry)
        found[call.layer] = entry
    assert found, "no layer has sampled"
    return found


def layer_biases(model: nn.Module, step: Callable[[], Any]) -> dict[str, float]:
    """The bias of every layer that samples in a step, relative to its gradient (see `expected_gradients`)."""
    return {layer: expected.bias for layer, expected in expected_gradients(model, step).items()}
