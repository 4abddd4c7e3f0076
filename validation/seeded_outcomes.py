"""Listing the outcomes of an estimator whose operator comes from a seed: its `Source` answers with listed values.

A first run records which numbers are asked for. Then every combination of their values is one outcome. Signs,
integers and subsets are listed as they are. A normal number is listed by the three points −√3, 0, √3 with
probabilities 1/6, 2/3, 1/6, which have all its moments up to the fifth: the estimate is a polynomial of degree two
in every normal number, so mean and total variance come out exact, although the outcomes are not those of a draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import combinations, product

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from wtacrs.estimators import InputError
from wtacrs.estimators.seeded import SeededEstimator

_SIGNS = ((-1.0, 0.5), (1.0, 0.5))
_NORMALS = ((-math.sqrt(3.0), 1 / 6), (0.0, 2 / 3), (math.sqrt(3.0), 1 / 6))

# an address in a source, and its possible values with their probabilities
Address = Hashable
Choices = Sequence[tuple[float | tuple[int, ...], float]]


class ListedSource:
    """A `Source` whose numbers are those of one outcome.

    Args:
        chosen: which value every address has; an address that is missing has its first one.
    """

    def __init__(self, chosen: dict[Address, int] | None = None) -> None:
        self.chosen = chosen or {}
        self.asked: dict[Address, Choices] = {}

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

    def _numbers(self, kind: str, stream: int, counters: Tensor, choices: Choices) -> Float64[Tensor, "*shape"]:
        values = [self._value((kind, stream, counter), choices) for counter in counters.flatten().tolist()]
        return torch.tensor(values, dtype=torch.float64, device=counters.device).reshape(counters.shape)

    def _value(self, address: Address, choices: Choices) -> float | tuple[int, ...]:
        self.asked[address] = choices
        return choices[self.chosen.get(address, 0)][0]


def seeded_outcomes(
    estimator: SeededEstimator,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    support: Bool[Tensor, " n"],
    limit: int,
) -> Iterator[tuple[Float64[Tensor, "m d"], float]]:
    """Every outcome of an estimate and its probability.

    Raises:
        InputError: if there are more than `limit`.
    """
    run = _runner(estimator, x, dy, support)
    first = ListedSource()
    run(first)
    count = math.prod(len(choices) for choices in first.asked.values())
    if count > limit:
        raise InputError(
            f"{estimator!r} has {count} outcomes on shape {list(x.shape)}, more than limit={limit}; "
            "enumerate a smaller problem or raise limit"
        )
    for picks in product(*(range(len(choices)) for choices in first.asked.values())):
        source = ListedSource(dict(zip(first.asked, picks, strict=True)))
        estimate = run(source)
        if source.asked.keys() != first.asked.keys():
            raise RuntimeError(f"{estimator!r} asks for other random numbers in another outcome")
        yield (
            estimate,
            math.prod(choices[pick][1] for choices, pick in zip(first.asked.values(), picks, strict=True)),
        )


def _runner(
    estimator: SeededEstimator, x: Tensor, dy: Tensor, support: Tensor
) -> Callable[[ListedSource], Float64[Tensor, "m d"]]:
    seed = torch.zeros(1, dtype=torch.int64, device=x.device)

    def run(source: ListedSource) -> Float64[Tensor, "m d"]:
        return estimator.finish(estimator.keep(x, support, seed, source), dy, source).double()

    return run
