"""What an estimator may leave to chance, and the estimators that ask for it: what is enumerated is the code that trains.

`compress` runs `keep` on choices that are drawn from a generator, `contract` runs `finish` on the numbers of a saved
seed. Enumeration passes listed choices to both. An estimator asks `RandomChoices` for any of

- a plan of a row design: which rows to keep;
- a seed and the numbers it stands for, with which `finish` is given the same numbers again;
- fresh uniform numbers, for a rounding that is not undone.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Estimator
from wtacrs.estimators.core.checks import check_matrix
from wtacrs.estimators.core.counter_rng import CounterStream, FreshNumbers, Source, Uniforms, new_seed
from wtacrs.estimators.core.row_design import RowDesign, RowPlan
from wtacrs.estimators.core.scores import sampling_scores

SavedT = TypeVar("SavedT", bound=tuple[Any, ...])


@runtime_checkable
class RandomChoices(Protocol):
    """What one `compress` leaves to chance."""

    def plan(self, design: RowDesign, scores: Float64[Tensor, " n"]) -> RowPlan:
        """A plan of the design for checked scores."""

    def seeded(self) -> tuple[Int64[Tensor, " 1"], Source]:
        """A seed and its numbers: whoever keeps the seed is given them again in `finish`."""

    def fresh(self, dtype: torch.dtype) -> Uniforms:
        """Uniform numbers that are not needed again."""


class DrawnChoices(NamedTuple):
    """Choices drawn from a generator: `RandomChoices`."""

    generator: torch.Generator | None
    device: torch.device

    def plan(self, design: RowDesign, scores: Float64[Tensor, " n"]) -> RowPlan:
        """What the design draws."""
        return design.draw(scores, self.generator)

    def seeded(self) -> tuple[Int64[Tensor, " 1"], Source]:
        """A new seed."""
        seed = new_seed(self.device, self.generator)
        return seed, CounterStream(seed)

    def fresh(self, dtype: torch.dtype) -> Uniforms:
        """Numbers of the generator, in the order they are asked for."""
        return FreshNumbers(self.generator, dtype)


class SourcedEstimator(Estimator[SavedT]):
    """Base of the estimators that are written against `RandomChoices`: a subclass defines `keep` and `contract`."""

    @abstractmethod
    def keep(self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"], source: RandomChoices) -> SavedT:
        """What `compress` returns.

        Args:
            x: as in `compress`.
            scores: checked (see `sampling_scores`).
            source: of everything random; one that draws nothing does not ask it.
        """

    def finish(self, saved: SavedT, dy: Float[Tensor, "n m"], source: Source) -> Float[Tensor, "m d"]:
        """What `contract` returns, with numbers of the source in place of those of a saved seed; here none are needed."""
        return self.contract(saved, dy)

    def unlisted(self) -> str | None:
        """Why the outcomes cannot be listed; None if they can."""
        return None

    def compress(
        self,
        x: Float[Tensor, "n d"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> SavedT:
        """`keep` with choices from the generator (see `Estimator.compress`)."""
        check_matrix("x", x)
        return self.keep(x, sampling_scores(x, scores), DrawnChoices(generator, x.device))


class RegeneratingEstimator(SourcedEstimator[SavedT]):
    """Base of those that keep a `seed` and need its numbers again: a subclass defines `keep` and `finish`."""

    @abstractmethod
    def finish(self, saved: SavedT, dy: Float[Tensor, "n m"], source: Source) -> Float[Tensor, "m d"]:
        """What `contract` returns, with the numbers of the saved seed from the source."""

    def contract(self, saved: SavedT, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """`finish` with the numbers of the saved seed (see `Estimator.contract`)."""
        check_matrix("dy", dy)
        return self.finish(saved, dy, CounterStream(saved.seed))  # type: ignore[attr-defined]
