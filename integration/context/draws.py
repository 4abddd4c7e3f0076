"""Random numbers of the layers: a seed of their own, a count of forward passes, and generators made of both."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import torch

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.parallel.processes import Processes, mixed_seed
from wtacrs.validation.arguments import shown

_COUNTING = threading.Lock()
_BELOW = {"seed": 2**64, "passes": None}
"""What the state has, from 0; `torch.initial_seed()` may be any number of 64 bits."""


class Draws:
    """The seed of a converted model's layers, and how many forward passes have drawn from it.

    torch's own generators are neither read from nor advanced: dropout sees the random numbers that it sees in the stock
    model, also where a forward pass is run twice with the generators put back.

    Args:
        seed: what all draws are a function of, with the number of the forward pass and the rank of the process; None for
            `torch.initial_seed()`, the seed that `torch.manual_seed` set, which is only looked at.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = torch.initial_seed() if seed is None else seed
        self.passes = 0

    def next_pass(self) -> int:
        """The seed of a forward pass that begins to draw; each process has another one."""
        with _COUNTING:
            self.passes += 1
            number = self.passes
        return mixed_seed(self.seed, "pass", number, "process", Processes.here().rank)

    def state_dict(self) -> dict[str, int]:
        """Everything that the next draws depend on besides the rank."""
        return {"seed": self.seed, "passes": self.passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            InputError: if it is no such state.
        """
        check_draws(state)
        self.seed, self.passes = state["seed"], state["passes"]


def check_draws(state: Mapping[str, Any], argument: str = "state") -> None:
    """Refuse what `Draws.state_dict` cannot have returned.

    Raises:
        InputError: naming the entry, its value and what is accepted.
    """
    for name, end in _BELOW.items():
        value = state.get(name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or value < 0
            or (end is not None and value >= end)
        ):
            accepted = "an int from 0" if end is None else f"an int from 0 to {end - 1}"
            raise InputError(f"{argument}[{name!r}]={shown(value)} must be {accepted}")


class PassDraws:
    """Generators of one forward pass: a function of its seed, a layer's name and the number of its call alone.

    So a layer that activation checkpointing runs again draws the rows again that it drew, if it is called once.

    Args:
        draws: asked for the seed at the first draw: a pass without draws (without gradients, in eval mode) counts for
            nothing.
    """

    def __init__(self, draws: Draws) -> None:
        self._draws = draws
        self._seed: int | None = None
        self._calls: dict[str, int] = {}

    def generator(self, layer: str, device: torch.device) -> torch.Generator:
        """Source of the random numbers of a layer's next call."""
        if self._seed is None:
            self._seed = self._draws.next_pass()
        call = self._calls.get(layer, 0)
        self._calls[layer] = call + 1
        return torch.Generator(device).manual_seed(mixed_seed(self._seed, layer, call))

    def forget_calls(self) -> None:
        """Count calls from the first again."""
        self._calls = {}
