"""Several processes that train one model: which one this is, its share of the work, and random numbers of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, distributed

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.parallel.environment import env_world_size

T = TypeVar("T")


def mixed_seed(*parts: object) -> int:
    """A seed that is a function of numbers and texts, none of which can be told from it."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1  # torch's seeds are signed


@dataclass(frozen=True)
class Processes:
    """One of `count` processes that were started together, number `rank` from 0 on."""

    rank: int = 0
    count: int = 1

    @staticmethod
    def here() -> Processes:
        """Those of torch's process group; a single one where there is none."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return Processes()
        return Processes(distributed.get_rank(), distributed.get_world_size())

    @staticmethod
    def started() -> Processes:
        """Those that torchrun or `accelerate launch` started, made known to each other; or a single one.

        Raises:
            InputError: if they cannot find each other.
        """
        if env_world_size() > 1 and not distributed.is_initialized():
            from accelerate import PartialState

            try:
                PartialState()
            except (ValueError, RuntimeError) as error:
                reason = str(error).splitlines()[0]
                raise InputError(
                    f"WORLD_SIZE={env_world_size()}: the processes do not find each other: {reason}"
                ) from None
        return Processes.here()

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and talks."""
        return self.rank == 0

    def own_seed(self, seed: int) -> int:
        """The seed that this process draws from, independently of all others; in a single process `seed` itself.

        Errors of estimates that were drawn alike would not average out over the processes.
        """
        return seed if self.count == 1 else mixed_seed(seed, "process", self.rank)

    def share(self, items: Sequence[T]) -> list[T]:
        """Every `count`-th item from number `rank` on: together the processes have every item once."""
        return list(items[self.rank :: self.count])

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes, in every one of them the same to the last bit."""
        if self.count == 1:
            return value
        total = value.clone()
        distributed.all_reduce(total)
        return total / self.count

    def gathered(self, value: T) -> list[T]:
        """What every process gives, in the order of their ranks; anything that can be pickled."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, value)
        return found

    def run_on_all(self, work: Callable[[], T]) -> T:
        """Do the same in every process; what one of them refuses, all of them refuse.

        Raises:
            InputError: the first process's, in every process. None is left waiting for one that has ended.
        """
        result: T | None = None
        refusal: str | None = None
        try:
            result = work()
        except (InputError, OSError) as error:
            if self.count == 1:
                raise
            refusal = str(error)
        refusals = self.gathered(refusal)
        for rank, message in enumerate(refusals):
            if message is not None:
                everywhere = None not in refusals
                raise InputError(message if everywhere else f"process {rank}: {message}")
        return result  # type: ignore[return-value]

    def end(self) -> None:
        """Leave the others."""
        if self.count > 1:
            distributed.destroy_process_group()
