"""Random numbers of the layers in one forward pass, the same again when a layer is run again."""

from __future__ import annotations

import torch

from wtacrs.integration.parallel.processes import mixed_seed, own_seed


class LayerDraws:
    """Generators that are a function of a seed, a layer's name and the number of its call alone.

    torch's default generator is not touched. So a layer that activation checkpointing runs again draws the same rows (if
    it is called once), and the dropout around it sees the random numbers that it saw in the forward pass, whatever was
    drawn, shared or left out then.

    Args:
        seed: of the pass.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._calls: dict[str, int] = {}

    def generator(self, layer: str, device: torch.device) -> torch.Generator:
        """Source of the random numbers of a layer's next call."""
        call = self._calls.get(layer, 0)
        self._calls[layer] = call + 1
        return torch.Generator(device).manual_seed(mixed_seed(self._seed, layer, call))

    def forget_calls(self) -> None:
        """Count calls from the first again."""
        self._calls = {}


def new_pass_seed() -> int | None:
    """The seed of a forward pass in which layers draw, one number from torch's default generator, mixed with the rank.

    None without gradients, where nothing is sampled, and in compiled code, where layers draw from torch's default
    generator.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    return own_seed()
