"""The time of estimators and of somebody else's products and layers, each over that of what it replaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wtacrs.estimators import Estimator
from wtacrs.estimators.core.products import product_dtype
from wtacrs.validation.benchmarks.timing import interleaved_medians
from wtacrs.validation.properties.external_estimators import ExternalLinear, step

ROUNDS = 5


def times_over_exact(
    x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], estimators: Sequence[Estimator], *, rounds: int = ROUNDS
) -> list[float]:
    """Time of one estimate over that of the exact product, of a layer over a step of `nn.Linear` of its sizes.

    All take turns in every round; medians are compared. An estimator's time is that of both verbs, a product's that of
    its call, a layer's that of a forward and backward pass with all of its gradients.
    """
    dtype = product_dtype(x, dy)
    x, dy = x.to(dtype), dy.to(dtype)
    stock = nn.Linear(x.shape[1], dy.shape[1], device=x.device, dtype=dtype)
    runs: list[Callable[[], object]] = [lambda: dy.T @ x, lambda: step(stock, x, dy)]
    runs += [_run(estimator, x, dy) for estimator in estimators]
    product, layer, *found = interleaved_medians(runs, rounds=rounds, device=x.device)
    return [
        seconds / (layer if isinstance(estimator, ExternalLinear) else product)
        for seconds, estimator in zip(found, estimators, strict=True)
    ]


def _run(estimator: Estimator, x: Tensor, dy: Tensor) -> Callable[[], object]:
    if isinstance(estimator, ExternalLinear):
        module = estimator.module(x.shape[1], dy.shape[1], x.dtype).to(x.device)
        return lambda: step(module, x, dy)
    generator = torch.Generator(x.device).manual_seed(0)
    return lambda: estimator.contract(estimator.compress(x, generator=generator), dy)
