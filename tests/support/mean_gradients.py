"""Projections of a whole model's gradient, for tests of its mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DIRECTIONS = 4


def gradients(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of every parameter that gets one, in fp64."""
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: p.grad.clone().double() for name, p in model.named_parameters() if p.grad is not None}


def gradient_projections(
    model: nn.Module, exact: dict[str, Tensor], batch: dict[str, Tensor], draws: int
) -> Tensor:
    """`[draws, layers × directions]`: (dW estimate − exact) on fixed directions, relative to ‖dW‖."""
    generator = torch.Generator().manual_seed(1)
    directions = {}
    for name, gradient in exact.items():
        random = torch.randn(DIRECTIONS, *gradient.shape, generator=generator, dtype=torch.float64)
        probes = torch.cat([random, gradient[None]])
        directions[name] = probes / probes.flatten(1).norm(dim=1)[(...,) + (None,) * gradient.ndim]
    torch.manual_seed(2)
    samples = []
    for _ in range(draws):
        found = gradients(model, batch)
        samples.append(
            torch.cat(
                [
                    (directions[name] * (found[name] - exact[name])).flatten(1).sum(1) / exact[name].norm()
                    for name in exact
                ]
            )
        )
    return torch.stack(samples)


def repeated(batch: dict[str, Tensor], copies: int) -> dict[str, Tensor]:
    """A batch that holds its examples so many times."""
    return {name: torch.cat([rows] * copies) for name, rows in batch.items()}
