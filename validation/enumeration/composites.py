"""Moments over the outcomes of estimators that run on a `ListedSource`: from a seed, rounded, or composite.

Outcomes are listed in two steps: the plans of the row design, if there is one, and given the plan all other random
numbers. Mean and total variance follow from those given the plan: `Var Ĝ = E Var(Ĝ | plan) + Var E(Ĝ | plan)`.

The combinations of many rounded numbers are too many to list, and need not be. Given the plan, the uniform numbers
`u_1 … u_q` are independent, and since every number is rounded by itself and `contract` is linear in the rounded ones,
the estimate is a sum of functions of one of them each: with any fixed `v`,

    Ĝ(u) = Ĝ(v) + Σ_c δ_c(u_c),   δ_c(u_c) = Ĝ(v with u_c at place c) − Ĝ(v).

Hence `E(Ĝ | plan) = Ĝ(v) + Σ_c E δ_c`, and by independence `Var(Ĝ | plan) = Σ_c Var δ_c`: one number is varied at a
time. That the estimate is such a sum, and each δ_c affine between the declared cuts, is checked in every plan on
points at which all numbers differ from v and lie at the ends of their cells.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators import Estimator, InputError, Traits, sampling_scores
from wtacrs.estimators.core.sourced import SourcedEstimator
from wtacrs.validation.enumeration.plans import WrongCuts
from wtacrs.validation.enumeration.sources import Address, ListedSource, Plan, Plans, Uniform
from wtacrs.validation.enumeration.weighted_moments import WeightedMoments

# distance of a probe from the end of its cell: beyond the rounding of the cut, in cells of every length
_INSET, _SHARE = 1e-9, 0.25
# accepted difference at a probe, relative to the largest entry of an estimate
_PROBE = 1e-9


class Listed(Estimator[Any]):
    """An estimator on listed choices; a composite runs around it as around the real one.

    One that draws nothing need not be written against choices: it runs as it is.
    """

    def __init__(self, inner: Estimator, source: ListedSource) -> None:
        self.inner = inner
        self.source = source

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        """Those of the estimator."""
        return self.inner.traits

    def compress(
        self,
        x: Float[Tensor, "n d"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Any:
        """What the estimator's `compress` does once its random numbers are drawn."""
        if isinstance(self.inner, SourcedEstimator):
            return self.inner.keep(x, sampling_scores(x, scores), self.source)
        return self.inner.compress(x, scores=scores)

    def contract(self, saved: Any, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """What the estimator's `contract` does, with the same random numbers."""
        if isinstance(self.inner, SourcedEstimator):
            return self.inner.finish(saved, dy, self.source)
        return self.inner.contract(saved, dy)

    def __repr__(self) -> str:
        return repr(self.inner)


def on_listed(estimator: Estimator, source: ListedSource) -> Estimator:
    """The estimator, with the random choices of the source in its innermost random part."""
    if estimator.random_part is None:
        return Listed(estimator, source)
    inner = getattr(estimator, estimator.random_part)
    return replace(estimator, **{estimator.random_part: on_listed(inner, source)})  # type: ignore[type-var]


class Run(NamedTuple):
    """One estimate and what it asked for."""

    estimate: Float64[Tensor, "m d"]
    source: ListedSource


class Listing:
    """The outcomes of one estimate.

    Args:
        estimator: one that `can_enumerate` accepts.
        x: input rows.
        dy: output gradients.
        scores: as in `Estimator.compress`.
        limit: largest number of outcomes.
    """

    def __init__(
        self,
        estimator: Estimator,
        x: Float[Tensor, "n d"],
        dy: Float[Tensor, "n m"],
        scores: Shaped[Tensor, " n"] | None,
        limit: int,
    ) -> None:
        self.estimator, self.x, self.dy, self.scores, self.limit = estimator, x, dy, scores, limit
        self.outcomes = 0
        self._known: dict[Hashable, Plans] = {}

    def moments(self, combinations: bool) -> WeightedMoments:
        """Mean and total variance.

        Args:
            combinations: list all combinations of rounded numbers too.

        Raises:
            InputError: if there are more than `limit` outcomes.
            WrongCuts: if a rounding is not what it is declared to be.
            RuntimeError: if random numbers are drawn that are not listed.
        """
        self._check_own_draws()
        plans = self._run({}).source.asked.get(Plan(), [(None, 1.0)])
        found = WeightedMoments()
        for position, (_, probability) in enumerate(plans):
            given: dict[Address, int] = {Plan(): position}
            first = self._run(given)
            addresses = [address for address in first.source.asked if address != Plan()]
            apart = not combinations and all(isinstance(address, Uniform) for address in addresses)
            sizes = [len(first.source.asked[address]) for address in addresses]
            self._count(sum(sizes) if apart and sizes else math.prod(sizes), len(plans) - position - 1)
            inside = self._apart(given, first) if apart else self._combined(given, first)
            found.add(inside.mean, probability * inside.weight, inside.total_variance())
        return found

    def _run(self, chosen: dict[Address, int], numbers: dict[Uniform, float] | None = None) -> Run:
        source = ListedSource(chosen, numbers=numbers, known=self._known, limit=self.limit, device=self.x.device)
        estimator = on_listed(self.estimator, source)
        saved = estimator.compress(self.x, scores=self.scores)
        return Run(estimator.contract(saved, self.dy).double(), source)

    def _check_own_draws(self) -> None:
        """A composite leaves all random choices to the part that is listed."""
        source = ListedSource(known=self._known, limit=self.limit, device=self.x.device)
        own = torch.Generator(self.x.device).manual_seed(0)
        before = own.get_state(), torch.get_rng_state()
        on_listed(self.estimator, source).compress(self.x, scores=self.scores, generator=own)
        if not (torch.equal(own.get_state(), before[0]) and torch.equal(torch.get_rng_state(), before[1])):
            raise RuntimeError(f"{self.estimator!r} draws random numbers of its own, which are not listed")

    def _count(self, here: int, plans_to_come: int) -> None:
        self.outcomes += here
        least = self.outcomes + plans_to_come
        if least > self.limit:
            raise InputError(
                f"{self.estimator!r} has {least} outcomes or more on shape {list(self.x.shape)}, more than "
                f"limit={self.limit}; enumerate a smaller problem or raise limit"
            )

    def _combined(self, given: dict[Address, int], first: Run) -> WeightedMoments:
        """Every combination of answers."""
        asked = {address: choices for address, choices in first.source.asked.items() if address != Plan()}
        found = WeightedMoments()
        for picks in product(*(range(len(choices)) for choices in asked.values())):
            run = self._run({**given, **dict(zip(asked, picks, strict=True))})
            if run.source.asked.keys() != first.source.asked.keys():
                raise RuntimeError(f"{self.estimator!r} asks for other random numbers in another outcome")
            chances = (choices[pick][1] for choices, pick in zip(asked.values(), picks, strict=True))
            found.add(run.estimate, math.prod(chances))
        return found

    def _apart(self, given: dict[Address, int], first: Run) -> WeightedMoments:
        """One rounded number at a time."""
        mean, variance = first.estimate, 0.0
        listed: dict[Uniform, list[Tensor]] = {}
        for address, choices in first.source.asked.items():
            if not isinstance(address, Uniform):
                continue
            # the first run has answer 0 everywhere
            others = [self._run({**given, address: pick}) for pick in range(1, len(choices))]
            listed[address] = [run.estimate - first.estimate for run in (first, *others)]
            alone = WeightedMoments()
            for change, (_, probability) in zip(listed[address], choices, strict=True):
                alone.add(change, probability)
            mean, variance = mean + alone.mean, variance + alone.total_variance()
        self._check_sum(given, first, listed)
        found = WeightedMoments()
        found.add(mean, 1.0, variance)
        return found

    def _check_sum(self, given: dict[Address, int], first: Run, listed: dict[Uniform, list[Tensor]]) -> None:
        """The estimate is a sum over the numbers, affine between their cuts."""
        size = max([float((first.estimate + d).abs().max()) for ds in listed.values() for d in ds], default=0.0)
        for numbers in _probes(first.source.cells):
            predicted = first.estimate
            for address, number in numbers.items():
                predicted = predicted + _between(number, first.source, address, listed[address])
            error = float((self._run(given, numbers).estimate - predicted).abs().max())
            if not error <= _PROBE * size:
                raise WrongCuts(
                    f"{self.estimator!r}: with the uniform numbers {list(numbers.values())} the estimate is off by "
                    f"{error:.3g} from a sum of one term per rounded number, affine between the declared cuts"
                )


def _between(number: float, source: ListedSource, address: Uniform, changes: list[Tensor]) -> Tensor:
    """The change at a number, on the line through those at the two listed ones of its cell."""
    cell = next(i for i, (low, high) in enumerate(source.cells[address]) if low <= number <= high)
    (left, _), (right, _) = source.asked[address][2 * cell : 2 * cell + 2]
    share = (number - left) / (right - left)  # type: ignore[operator]
    return torch.lerp(changes[2 * cell], changes[2 * cell + 1], share)


def _probes(cells: dict[Uniform, list[tuple[float, float]]]) -> Iterator[dict[Uniform, float]]:
    """Points at which every number lies near an end of a cell, near every end once, and every two apart once."""
    ends = {address: [end for cell in each for end in _ends(*cell)] for address, each in cells.items()}
    for position in range(max(map(len, ends.values()), default=0)):
        yield {address: each[position % len(each)] for address, each in ends.items()}
    for digit in range(max(len(ends) - 1, 0).bit_length()):
        yield {address: each[-1 if (j >> digit) & 1 else 0] for j, (address, each) in enumerate(ends.items())}


def _ends(low: float, high: float) -> tuple[float, float]:
    inset = min(_INSET, _SHARE * (high - low))
    return low + inset, high - inset
