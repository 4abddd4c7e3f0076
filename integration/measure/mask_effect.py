"""What a mask does to the mean of a model's estimated gradient: exactly, by closed forms, without a draw."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wtacrs.estimators import Estimator, InputError, NoClosedForm
from wtacrs.estimators.core.mask_floor import MASK_FLOOR
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.context.mask_watch import padding_share
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.measure.mean_gradient import MeanOf

_NEGLIGIBLE = 1e-9
"""A layer whose ‖G‖ is below this share of the model's has no direction to be biased in but that of rounding."""


@dataclass(frozen=True)
class MaskEffect:
    """The mean of one step's gradient, and of the step after it on the same batch and weights.

    Attributes:
        layers: converted layers that get a gradient.
        masked: of these, layers in which a mask calls rows padding, in the first step.
        kept: of these, layers that still use it in the second.
        share: the largest share of ‖dY‖² in rows called padding, over layers.
        bias: the largest ‖EĜ − G‖/‖G‖ over layers, in the first step.
        bias_after: the same in the second.
        score_zero: `⟨EĜ, G⟩/‖G‖²` over all layers together if rows called padding had score 0: 1 without a bias,
            and where the gradient is 0.
        score_zero_layer: the least of it over layers.
    """

    layers: int
    masked: int
    kept: int
    share: float
    bias: float
    bias_after: float
    score_zero: float
    score_zero_layer: float


def mask_effect(
    model: nn.Module,
    batch: Mapping[str, Any],
    estimator: Estimator,
    *,
    source: Tensor | None = None,
    mask_floor: float = MASK_FLOOR,
    seed: int = 0,
) -> MaskEffect:
    """Convert a model, and compare the mean of its gradient with the exact one.

    Dropout is the same in all passes. The model stays converted to `MeanOf(estimator)`. Layers do not share inputs, so
    that each is told about by itself.

    Args:
        model: stock, in training mode.
        batch: its arguments; the output has a loss.
        estimator: with a closed form of its mean.
        source: a mask that is stated by hand, beside those of the arguments.
        mask_floor: as in `approximate_`.
        seed: of dropout.

    Raises:
        InputError: if the loss or a gradient is not finite, or the estimator has no closed form of its mean.
    """
    exact = _gradients(model, batch, seed)
    names = approximate_(model, MeanOf(estimator), min_elements=0, share_inputs=False, mask_floor=mask_floor)
    weights = {f"{name}.weight" for name in names}
    exact = {name: gradient for name, gradient in exact.items() if name in weights}
    context = ForwardContext.of(model)
    assert context is not None

    def stated() -> AbstractContextManager[None]:
        return nullcontext() if source is None else context.given(source=source)

    found = []
    for _ in range(2):
        with stated(), _observed(model) as seen:
            mean = _gradients(model, batch, seed)
        found.append((_bias(mean, exact), seen))
    (bias, first), (bias_after, second) = found
    return MaskEffect(
        layers=len(first.exact),
        masked=len(first.masked),
        kept=len(second.masked),
        share=max(first.shares, default=0.0),
        bias=bias,
        bias_after=bias_after,
        score_zero=_projection(first.live, first.exact),
        score_zero_layer=min(_projections(first.live, first.exact), default=1.0),
    )


class _Observed:
    """What the layers of one pass show: masks in use, dY at padding, and both products by layer."""

    def __init__(self) -> None:
        self.masked: set[str] = set()
        self.shares: list[float] = []
        self.live: dict[str, Tensor] = {}
        self.exact: dict[str, Tensor] = {}

    def hook(self, name: str, layer: EstimatedWeightGrad, x: Tensor, output: Tensor) -> None:
        if not output.requires_grad or not layer.samples(x):
            return
        mask = layer.mask_of(x)
        rows = x.detach().reshape(-1, x.shape[-1]).double()
        mask = torch.ones(len(rows), dtype=torch.bool) if mask is None else mask
        if not bool(mask.all()):
            self.masked.add(name)

        def on_grad(dy: Tensor) -> None:
            y = dy.reshape(len(rows), -1).double()
            self.shares.append(padding_share(y, mask))
            self.exact[name] = self.exact.get(name, 0.0) + y.T @ rows
            self.live[name] = self.live.get(name, 0.0) + y[mask].T @ rows[mask]

        output.register_hook(on_grad)


@contextmanager
def _observed(model: nn.Module) -> Iterator[_Observed]:
    seen, handles = _Observed(), []
    for name, layer in model.named_modules():
        if isinstance(layer, EstimatedWeightGrad):
            handles.append(
                layer.register_forward_hook(
                    lambda module, args, output, name=name: seen.hook(name, module, args[0], output)
                )
            )
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _gradients(model: nn.Module, batch: Mapping[str, Any], seed: int) -> dict[str, Tensor]:
    """Those of a pass with these random numbers, by parameter."""
    model.zero_grad()
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "rows that a mask calls padding")  # this is what is measured
        torch.manual_seed(seed)
        loss = model(**batch).loss
        if not bool(torch.isfinite(loss)):
            raise InputError(f"model={type(model).__name__}: its loss is {float(loss)}")
        try:
            loss.backward()
        except NoClosedForm as error:
            raise InputError(f"estimator: {error}") from None
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for name, gradient in found.items():
        if not bool(torch.isfinite(gradient).all()):
            raise InputError(f"model={type(model).__name__}: the gradient of {name} is not finite")
    return found


def _bias(mean: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> float:
    norms = _norms(exact)
    return max(
        (float((mean[name] - exact[name]).double().norm()) / norm for name, norm in norms.items()), default=0.0
    )


def _projection(mean: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> float:
    norms = _norms(exact)
    along = sum(float((mean[name] * exact[name]).sum()) for name in norms)
    return along / math.fsum(norm**2 for norm in norms.values()) if norms else 1.0


def _projections(mean: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> list[float]:
    return [float((mean[name] * exact[name]).sum()) / norm**2 for name, norm in _norms(exact).items()]


def _norms(exact: Mapping[str, Tensor]) -> dict[str, float]:
    """‖G‖ by layer, where it is more than rounding."""
    norms = {name: float(gradient.double().norm()) for name, gradient in exact.items()}
    least = _NEGLIGIBLE * math.hypot(*norms.values())
    return {name: norm for name, norm in norms.items() if norm > least}
