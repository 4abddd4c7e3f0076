"""Problems for tests of a mean: rows in parts, each part in columns of x of its own, so that the estimate shows it.

Where the parts of a problem share no column of x (nor of dy, where it is wide enough), their exact products are
orthogonal, and the mean of an estimate along one of them says how often this part is counted: 0 if it is dropped, k/n
if it is kept unweighted. Rows of one part are nearly parallel, so that their products add up: rounding and sampling
noise are small beside them.

All values are numbers of bfloat16, so that rounding the input to any of the four precisions changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from wtacrs.estimators import InputError
from wtacrs.validation.problems import Problem

_SIDE_MASS = 9e-4
_TINY = 1e-10
_LIGHT, _SIDE = "the lighter half of the rows", "the rows beside the dominating one"
# names of the parts that a sampler by norms meets less often
LIGHTER = (_LIGHT, _SIDE)


class Part(NamedTuple):
    """Part of a problem: what to call it, which rows it has, and which columns of x; all of them if None."""

    name: str
    rows: Bool[Tensor, " n"]
    columns: Bool[Tensor, " d"] | None = None

    def of(self, x: Float64[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
        """x with zeros elsewhere."""
        inside = x * self.rows.unsqueeze(1)
        return inside if self.columns is None else inside * self.columns


class MeanProblem(NamedTuple):
    """A problem and the parts of it that are looked at one by one; `parts` may be empty.

    Attributes:
        problem: x [n, d] and dy [n, m] in fp64.
        parts: rows whose share is tested beside that of all rows.
    """

    problem: Problem
    parts: Sequence[Part] = ()


Family = Callable[[int, int, int, torch.Generator], MeanProblem]
MEAN_PROBLEMS: dict[str, Family] = {}
# rows of a problem that is not asked for at another size
ROWS = 512
# with fewer rows a sampler would hardly ever meet the rows beside the dominating one
MANY_ROWS = 1024


def _family(name: str) -> Callable[[Callable[..., tuple[Problem, Sequence[Part]]]], Family]:
    def enter(build: Callable[..., tuple[Problem, Sequence[Part]]]) -> Family:
        def made(n: int, d: int, m: int, generator: torch.Generator) -> MeanProblem:
            problem, parts = build(n, d, m, generator)
            apart = d >= len(parts) and all(bool(part.of(problem.x).any()) for part in parts)
            rounded = Problem(*(t.to(torch.bfloat16).double() for t in problem))
            return MeanProblem(rounded, tuple(parts) if apart else ())

        MEAN_PROBLEMS[name] = made
        return made

    return enter


def mean_problem(name: str, n: int, d: int, m: int, generator: torch.Generator) -> MeanProblem:
    """The problem of a named family.

    Args:
        name: a key of `MEAN_PROBLEMS`.
        n: rows ≥ 8.
        d: columns of x ≥ 1; with fewer than there are parts the rows are not parted.
        m: columns of dy ≥ 1.
        generator: source of randomness; it advances.

    Raises:
        InputError: on an unknown name or a size below these.
    """
    if name not in MEAN_PROBLEMS:
        raise InputError(f"unknown problem {name!r}; available: {', '.join(MEAN_PROBLEMS)}")
    if n < 8 or d < 1 or m < 1:
        raise InputError(f"problem {name!r} needs n ≥ 8, d ≥ 1 and m ≥ 1, got n={n}, d={d}, m={m}")
    return MEAN_PROBLEMS[name](n, d, m, generator)


@_family("heavy-tailed rows")
def heavy_tailed(n: int, d: int, m: int, generator: torch.Generator) -> tuple[Problem, Sequence[Part]]:
    """Few rows hold most of the product: norms of x are Pareto of index 1, those of dy log-normal."""
    x_scale = _uniform(n, generator).reciprocal().clamp(max=100.0)
    dy_scale = (0.5 * _normal(n, 1, generator)).exp()
    rank = (x_scale * dy_scale).flatten().argsort(descending=True).argsort()
    heavy, light = rank < max(n // 16, 1), rank >= n // 2
    parts = (
        Part("the heaviest sixteenth of the rows", heavy),
        Part("the rows in between", ~heavy & ~light),
        Part(_LIGHT, light),
    )
    x, dy = _parallel(n, d, generator), _parallel(n, m, generator)
    return Problem(_parted(x * x_scale, parts), _parted(dy * dy_scale, parts)), parts


@_family("equal rows")
def equal_rows(n: int, d: int, m: int, generator: torch.Generator) -> tuple[Problem, Sequence[Part]]:
    """All row norms are equal to the last bit, so that no row stands out."""
    first = torch.arange(n) < n // 2
    parts = (Part("the first half of the rows", first), Part("the second half of the rows", ~first))
    return Problem(*(_halved(width, n, parts, generator) for width in (d, m))), parts


def _halved(width: int, n: int, parts: Sequence[Part], generator: torch.Generator) -> Float64[Tensor, "n width"]:
    """Signs in blocks of one width, so that the norms of both halves agree."""
    signs = _signs(n, width - width % 2 if width > 1 else width, generator)
    return torch.nn.functional.pad(_parted(signs, parts), (0, width - signs.shape[1]))


@_family("zero rows")
def zero_rows(n: int, d: int, m: int, generator: torch.Generator) -> tuple[Problem, Sequence[Part]]:
    """Every third row is zero in both factors, as padding is."""
    alive = (torch.arange(n) % 3 != 1).unsqueeze(1)
    x_scale = (0.7 * _normal(n, 1, generator)).exp()
    light = ((x_scale < x_scale.median()) & alive).flatten()
    parts = (
        Part("the heavier half of the rows", ~light & alive.flatten()),
        Part(_LIGHT, light),
    )
    x, dy = _parallel(n, d, generator) * x_scale, _parallel(n, m, generator)
    return Problem(_parted(x * alive, parts), _parted(dy * alive, parts)), parts


@_family("rows that cancel")
def cancelling(n: int, d: int, m: int, generator: torch.Generator) -> tuple[Problem, Sequence[Part]]:
    """Independent normal entries: products of rows point everywhere and mostly cancel."""
    return Problem(_normal(n, d, generator), _normal(n, m, generator)), ()


@_family("unequal columns")
def unequal_columns(n: int, d: int, m: int, generator: torch.Generator) -> tuple[Problem, Sequence[Part]]:
    """No entry is zero, and columns of x differ by up to a factor of 5: small entries count as well."""
    every, columns = torch.ones(n, dtype=torch.bool), torch.arange(d)
    heavier = columns < (d + 1) // 2
    parts = (
        Part("the heavier half of the columns", every, heavier),
        Part("the lighter half of the columns", every, ~heavier),
    )
    sizes = 5.0 ** -(columns.double() / max(d - 1, 1))
    x = _parallel(n, d, generator).abs() * (0.3 * _normal(n, d, generator)).exp() * sizes
    return Problem(x, _parallel(n, m, generator)), parts


@_family("one dominating row")
def one_dominating(n: int, d: int, m: int, generator: torch.Generator) -> tuple[Problem, Sequence[Part]]:
    """One row holds 0.9991 of the product, the others are alike; its dy is orthogonal to theirs."""
    heavy = torch.arange(n) == n // 2
    parts = (Part("the dominating row", heavy), Part(_SIDE, ~heavy))
    x, dy = _parted(_parallel(n, d, generator), parts), _parted(_parallel(n, m, generator), parts)
    norms = x.norm(dim=1) * dy.norm(dim=1)
    side = norms.sum() - norms[n // 2]
    x[n // 2] *= side * (1 - _SIDE_MASS) / _SIDE_MASS / norms[n // 2]
    return Problem(x, dy), parts


@_family("tiny gradients")
def tiny_gradients(n: int, d: int, m: int, generator: torch.Generator) -> tuple[Problem, Sequence[Part]]:
    """Rows of dy have norms of about 1e-10, as late in training or behind a scaled loss."""
    x_scale = (0.7 * _normal(n, 1, generator)).exp()
    light = (x_scale < x_scale.median()).flatten()
    parts = (Part("the heavier half of the rows", ~light), Part(_LIGHT, light))
    x, dy = _parallel(n, d, generator) * x_scale, _parallel(n, m, generator)
    return Problem(_parted(x, parts), _parted(_TINY * dy, parts)), parts


def _uniform(n: int, generator: torch.Generator) -> Float64[Tensor, "n 1"]:
    """Numbers in (0, 1]."""
    return 1.0 - torch.rand(n, 1, dtype=torch.float64, generator=generator)


def _normal(rows: int, columns: int, generator: torch.Generator) -> Float64[Tensor, "rows columns"]:
    return torch.randn(rows, columns, dtype=torch.float64, generator=generator)


def _parallel(rows: int, columns: int, generator: torch.Generator) -> Float64[Tensor, "rows columns"]:
    """Rows near (1, …, 1)."""
    return 1.0 + 0.3 * _normal(rows, columns, generator)


def _signs(rows: int, columns: int, generator: torch.Generator) -> Float64[Tensor, "rows columns"]:
    """Entries ±1, seven of eight of them positive."""
    positive = torch.rand(rows, columns, dtype=torch.float64, generator=generator) < 0.875
    return torch.where(positive, 1.0, -1.0).double()


def _parted(x: Float64[Tensor, "n d"], parts: Sequence[Part]) -> Float64[Tensor, "n d"]:
    """The same rows, each with the columns of its own part alone; as they are if there are too few columns."""
    d = x.shape[1]
    if d < len(parts):
        return x
    width = d // len(parts)
    columns = torch.arange(d)
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        own = (columns >= place * width) & ((columns < (place + 1) * width) | last)
        x = torch.where(part.rows.unsqueeze(1) & ~own, 0.0, x)
    return x
