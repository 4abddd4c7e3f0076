"""Every outcome of unbiased codes of element-wise functions, by the code that encodes, with its probability.

An element has two outcomes, its neighbouring levels: those of the least and of the largest random number. Their
probabilities follow from the value that lies between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, product
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from wtacrs.estimators import InputError
from wtacrs.estimators.rounding.element_codes import (
    DerivativeGrid,
    decode,
    encode_dithered,
    group_codes_dithered,
    group_values,
)
from wtacrs.validation.enumeration.weighted_moments import WeightedMoments

_LEAST, _LARGEST = -(2**15), 2**15 - 1
_LIMIT = 200_000


class Rounding(NamedTuple):
    """The two outcomes of every element: `upper` with probability `chance`."""

    lower: Float64[Tensor, "*shape"]
    upper: Float64[Tensor, "*shape"]
    chance: Float64[Tensor, "*shape"]

    def at(self, uniforms: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """The outcome by uniform numbers: `upper` where they are not below 1 − chance."""
        return torch.where(uniforms >= 1.0 - self.chance, self.upper, self.lower)


def rounding_of(values: Float64[Tensor, "*shape"], grid: DerivativeGrid) -> Rounding:
    """Outcomes of `encode` and `decode`."""
    return _between(
        values, lambda number: decode(encode_dithered(values, grid, lambda n: _all(number, n)), grid, values)
    )


def group_rounding_of(values: Float64[Tensor, "*shape"], bits: int) -> Rounding:
    """Outcomes of `group_codes` and `group_values`."""
    return _between(
        values,
        lambda number: group_values(group_codes_dithered(values, bits, lambda n: _all(number, n)), bits, values),
    )


def outcomes(*roundings: Rounding, shared: bool = False) -> Iterator[tuple[list[Tensor], float]]:
    """Every outcome of several roundings together, with its probability.

    Args:
        *roundings: of the same shape if they share numbers.
        shared: whether element i of all of them is rounded by one random number, instead of one each.

    Raises:
        InputError: if there are more than 200,000 outcomes.
    """
    groups = [list(roundings)] if shared else [[rounding] for rounding in roundings]
    cells = [_cells([rounding.chance.reshape(-1)[i] for rounding in group])
             for group in groups for i in range(group[0].chance.numel())]  # fmt: skip
    count = 1
    for cell in cells:
        count *= len(cell)
    if count > _LIMIT:
        raise InputError(f"{count} outcomes of {len(cells)} elements: at most {_LIMIT:,} are listed")
    for chosen in product(*cells):
        probability, start, found = 1.0, 0, []
        for _, weight in chosen:
            probability *= weight
        for group in groups:
            size = group[0].chance.numel()
            numbers = torch.tensor([u for u, _ in chosen[start : start + size]], dtype=torch.float64)
            found += [rounding.at(numbers.view(rounding.chance.shape)) for rounding in group]
            start += size
        yield found, probability


def moments_of(
    function: Callable[..., Tensor], roundings: Sequence[Rounding], *, shared: bool = False
) -> WeightedMoments:
    """Exact mean and total variance of a function of all outcomes."""
    found = WeightedMoments()
    for values, probability in outcomes(*roundings, shared=shared):
        found.add(function(*values), probability)
    return found


def _cells(chances: Sequence[Tensor]) -> list[tuple[float, float]]:
    """A uniform number of every cell between the cuts, and the length of the cell."""
    cuts = sorted({0.0, 1.0, *(1.0 - float(chance) for chance in chances)})
    return [((low + high) / 2, high - low) for low, high in pairwise(cuts)]


def _between(values: Tensor, at: Callable[[int], Tensor]) -> Rounding:
    lower, upper = at(_LEAST), at(_LARGEST)
    chance = torch.where(upper > lower, (values - lower) / torch.where(upper > lower, upper - lower, 1.0), 0.0)
    return Rounding(lower, upper, chance)


def _all(number: int, count: int) -> Tensor:
    return torch.full((count,), number, dtype=torch.int16)
