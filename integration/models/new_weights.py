"""Random weights from a seed, and nothing else: the random numbers of the caller stay as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from wtacrs.validation.seeds import checked_seed


@contextmanager
def weights_from(seed: int) -> Iterator[None]:
    """Within this, new tensors lie on the CPU and are drawn from the seed, whatever device is the default.

    Raises:
        InputError: if the seed is not one that torch accepts.
    """
    # torch.manual_seed would reseed CUDA too, which fork_rng(devices=[]) does not put back
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(checked_seed(seed))
        yield
