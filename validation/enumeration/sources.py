"""A source whose random choices are those of one outcome: enumeration hands it to the code that trains.

A first run records what is asked for, and which answers there are; then every combination of answers is one
outcome. Plans, signs, integers and subsets are listed as they are. Two kinds of numbers are listed by a rule with
which mean and total variance come out exact, although the outcomes are not those of a draw:

- Normal numbers: the points −√3, 0, √3 with probabilities 1/6, 2/3, 1/6, which have all moments up to the fifth.
  The estimate is a polynomial of degree two in every normal number.
- Uniform numbers u of a rounding: place p gets the code ⌊p + u⌋, which changes at u = 1 − frac(p) alone. In each of
  the two cells beside it the estimate is affine in u (stochastic rounding: constant; subtractive dithering: of
  slope −Δ), and the two points of Gauss and Legendre, middle ± half length/√3, integrate up to degree three. If
  several places share one number, there is a cut for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from itertools import combinations, pairwise
from typing import NamedTuple, NoReturn

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from wtacrs.estimators.core.counter_rng import Places
from wtacrs.estimators.core.row_design import RowDesign, RowPlan
from wtacrs.validation.enumeration.plans import listed_plans

_SIGNS = ((-1.0, 0.5), (1.0, 0.5))
_NORMALS = ((-math.sqrt(3.0), 1 / 6), (0.0, 2 / 3), (math.sqrt(3.0), 1 / 6))

# cuts this near to each other or to an end are one: places up to 255 are rounded by 3e-14
_SLIVER = 1e-12

_GOLDEN_RATIO = (math.sqrt(5.0) - 1) / 2

# what is asked for, and its possible answers with their probabilities
Address = Hashable
Choices = Sequence[tuple[float | tuple[int, ...], float]]
Plans = Sequence[tuple[RowPlan, float]]


class Plan(NamedTuple):
    """The address of the plan of a row design."""


class Uniform(NamedTuple):
    """The address of a uniform number of a rounding."""

    stream: int
    counter: int


class GivenPlan(NamedTuple):
    """`RandomChoices` of a row design, which asks for nothing but its plan."""

    given: RowPlan

    def plan(self, design: RowDesign, scores: Float64[Tensor, " n"]) -> RowPlan:
        """The given one."""
        return self.given

    def seeded(self) -> NoReturn:
        """Refused."""
        raise RuntimeError("a row design asks for a plan, not for a seed")

    def fresh(self, dtype: torch.dtype) -> NoReturn:
        """Refused."""
        raise RuntimeError("a row design asks for a plan, not for uniform numbers")


class ListedSource:
    """`RandomChoices` and `Source` in one, with the answers of one outcome.

    Args:
        chosen: which answer every address gets; an address that is missing gets its first one.
        numbers: uniform numbers that are no listed answer: to probe what lies between those.
        known: plans that are listed already, shared by the sources of one enumeration.
        limit: largest number of plans.
        device: of the seed that is kept and not looked at.
    """

    def __init__(
        self,
        chosen: dict[Address, int] | None = None,
        *,
        numbers: dict[Uniform, float] | None = None,
        known: dict[Hashable, Plans] | None = None,
        limit: int = 200_000,
        device: torch.device | None = None,
    ) -> None:
        self.chosen = chosen or {}
        self.numbers = numbers or {}
        self.known = {} if known is None else known
        self.limit = limit
        self.device = device
        self.asked: dict[Address, Choices | Plans] = {}
        self.cells: dict[Uniform, list[tuple[float, float]]] = {}
        self.answered: dict[Uniform, float] = {}

    def seeded(self) -> tuple[Int64[Tensor, " 1"], ListedSource]:
        """A seed that says nothing, and the listed numbers."""
        return torch.zeros(1, dtype=torch.int64, device=self.device), self

    def fresh(self, dtype: torch.dtype) -> ListedSource:
        """The listed numbers."""
        return self

    def plan(self, design: RowDesign, scores: Float64[Tensor, " n"]) -> RowPlan:
        """A plan of the design; equal ones are listed once."""
        key = (design, tuple(scores.tolist()))
        if key not in self.known:
            merged: dict[Hashable, tuple[RowPlan, float]] = {}
            for plan, probability in listed_plans(design, scores, self.limit):
                same = (tuple(plan.indices.tolist()), tuple(plan.weights.tolist()))
                merged[same] = (plan, probability + merged.get(same, (plan, 0.0))[1])
            self.known[key] = list(merged.values())
        self.asked[Plan()] = self.known[key]
        return self.known[key][self.chosen.get(Plan(), 0)][0]

    def offsets(self, stream: int, counters: Int64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """One outcome of unequal numbers: by their meaning, no other one has another mean or total variance."""
        return torch.frac((counters + 1).double() * _GOLDEN_RATIO + 0.1 * stream)

    def signs(self, stream: int, counters: Int64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """−1 or +1."""
        return self._numbers("sign", stream, counters, _SIGNS)

    def normals(self, stream: int, counters: Int64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """−√3, 0 or √3."""
        return self._numbers("normal", stream, counters, _NORMALS)

    def integers(self, stream: int, counters: Int64[Tensor, "*shape"], bound: int) -> Int64[Tensor, "*shape"]:
        """0 … bound − 1."""
        choices = [(float(value), 1.0 / bound) for value in range(bound)]
        return self._numbers("integer", stream, counters, choices).to(torch.int64)

    def subset(self, stream: int, allowed: Bool[Tensor, " n"], size: int) -> Int64[Tensor, " size"]:
        """Every combination of allowed positions; the first others where too few are allowed."""
        inside = allowed.nonzero().flatten().tolist()
        outside = (~allowed).nonzero().flatten().tolist()
        listed = list(combinations(inside, min(size, len(inside))))
        filled = [tuple(sorted((*some, *outside[: size - len(some)]))) for some in listed]
        choices = [(some, 1.0 / len(filled)) for some in filled]
        return torch.tensor(self._value(("subset", stream), choices), dtype=torch.int64, device=allowed.device)

    def uniforms(
        self, stream: int, counters: Int64[Tensor, "*shape"], places: Places = None
    ) -> Float64[Tensor, "*shape"]:
        """Those that round the places; without places the same answers again."""
        addresses = [Uniform(stream, counter) for counter in counters.flatten().tolist()]
        if places is not None:
            self._round(addresses, counters, places())
        unknown = [address.counter for address in addresses if address not in self.answered]
        if unknown:
            raise RuntimeError(f"uniform numbers {unknown} are asked for, which have rounded nothing")
        answers = [self.answered[address] for address in addresses]
        return torch.tensor(answers, dtype=torch.float64, device=counters.device).reshape(counters.shape)

    def _round(self, addresses: list[Uniform], counters: Tensor, places: Tensor) -> None:
        """Answer addresses by the places that they round."""
        if places.shape[: counters.ndim] != counters.shape:
            raise RuntimeError(
                f"uniform numbers {list(counters.shape)} are asked for to round places {list(places.shape)}"
            )
        users: dict[Uniform, list[float]] = {}
        sharing = places.reshape(len(addresses), -1 if addresses else 0)
        for address, rounded in zip(addresses, sharing.tolist(), strict=True):
            users.setdefault(address, []).extend(rounded)
        self.answered |= {address: self._uniform(address, rounded) for address, rounded in users.items()}

    def _uniform(self, address: Uniform, places: list[float]) -> float:
        self.cells[address] = _cells_between([1.0 - (place - math.floor(place)) for place in places])
        listed = self._value(address, [node for cell in self.cells[address] for node in _nodes(*cell)])
        return self.numbers.get(address, listed)  # type: ignore[arg-type]

    def _numbers(self, kind: str, stream: int, counters: Tensor, choices: Choices) -> Float64[Tensor, "*shape"]:
        values = [self._value((kind, stream, counter), choices) for counter in counters.flatten().tolist()]
        return torch.tensor(values, dtype=torch.float64, device=counters.device).reshape(counters.shape)

    def _value(self, address: Address, choices: Choices) -> float | tuple[int, ...]:
        self.asked[address] = choices
        return choices[self.chosen.get(address, 0)][0]


def _cells_between(cuts: list[float]) -> list[tuple[float, float]]:
    edges = [0.0]
    for cut in sorted(cuts):
        if edges[-1] + _SLIVER < cut < 1.0 - _SLIVER:
            edges.append(cut)
    return list(pairwise([*edges, 1.0]))


def _nodes(low: float, high: float) -> tuple[tuple[float, float], tuple[float, float]]:
    middle, offset = (low + high) / 2, (high - low) / (2 * math.sqrt(3.0))
    return (middle - offset, (high - low) / 2), (middle + offset, (high - low) / 2)
