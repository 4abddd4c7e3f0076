"""E dW = dW through a whole T5: every converted layer, with padding, at one stated level for all."""

from __future__ import annotations

import pytest
import torch
from false_alarms import share
from models import t5_batch, tiny_t5
from torch import Tensor, nn

from wtacrs.integration.convert import approximate_
from wtacrs.validation.significance import mean_test_from_projections

DRAWS = 300
DIRECTIONS = 4


def gradients(model: nn.Module) -> dict[str, Tensor]:
    model.zero_grad()
    model(**t5_batch()).loss.backward()
    return {name: p.grad.clone().double() for name, p in model.named_parameters() if p.grad is not None}


SPECS = ("crs(budget=0.3)", "wta_crs(budget=0.3)", 'wta_crs(budget=0.3, winners="optimal")')


@pytest.mark.parametrize("spec", SPECS)
def test_mean_gradient_of_every_layer_is_the_exact_one(spec: str) -> None:
    """Projections of all weight gradients on fixed directions, corrected over layers and directions (Holm)."""
    level = share("t5: mean gradient", tests=len(SPECS))
    test = mean_test_from_projections(_projections(spec), level, rounding=1e-5)
    assert not test.rejected, (spec, test.p_value, test.effect)


def test_a_biased_estimator_is_noticed() -> None:
    """Top-k's mean is off by half of ‖G‖ in many layers; the same test must see it."""
    test = mean_test_from_projections(_projections("topk(budget=0.3)"), 1e-7, rounding=1e-5)
    assert test.rejected


def _projections(spec: str) -> Tensor:
    """`[draws, layers × directions]`: (dW estimate − exact) on fixed directions, relative to ‖dW‖."""
    model = tiny_t5()
    exact = gradients(model)
    approximate_(model, spec, min_elements=0)
    generator = torch.Generator().manual_seed(1)
    directions = {}
    for name, gradient in exact.items():
        random = torch.randn(DIRECTIONS, *gradient.shape, generator=generator, dtype=torch.float64)
        probes = torch.cat([random, gradient[None]])
        directions[name] = probes / probes.flatten(1).norm(dim=1)[(...,) + (None,) * gradient.ndim]
    torch.manual_seed(2)
    samples = []
    for _ in range(DRAWS):
        found = gradients(model)
        samples.append(
            torch.cat(
                [
                    (directions[name] * (found[name] - exact[name])).flatten(1).sum(1) / exact[name].norm()
                    for name in exact
                ]
            )
        )
    return torch.stack(samples)
