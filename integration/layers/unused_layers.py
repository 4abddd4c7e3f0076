"""Converted layers that a model reads the weight of, and never calls: their dW is exact after all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from torch import nn

from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad


def exact_after_all(model: nn.Module, called: Collection[str]) -> list[str]:
    """Converted layers whose weight has a gradient though nothing has called them.

    Another module has taken a product with their weight, as VeLoRA of peft and `nn.MultiheadAttention` do. Where the
    weight is tied, the gradient may be that of another holder, so that nothing is said. Ask between the backward pass and
    `zero_grad`.

    Args:
        model: converted.
        called: `path` of all layers that were called since the conversion, with and without sampling.

    Returns:
        Names, in the order of `model.named_modules()`.
    """
    holders = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module._parameters.values()
        if parameter is not None
    )
    found = []
    for name, layer in model.named_modules():
        weight = layer._parameters.get("weight")
        if not isinstance(layer, EstimatedWeightGrad) or weight is None or layer.path in called:
            continue
        if weight.requires_grad and weight.grad is not None and holders[id(weight)] == 1:
            found.append(name)
    return found
