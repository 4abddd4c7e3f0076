"""Named families of small and medium problems (X, dY), each with one difficulty that an estimator must survive.

Every family is a pure function of the shape, the generator's state and the dtype; values are drawn in double
precision and then rounded, so that one seed gives the same problem in every precision.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from wtacrs.estimators.core.errors import InputError


class Problem(NamedTuple):
    """Input rows and output gradients of one linear layer; the exact product is `dy.T @ x`."""

    x: Float[Tensor, "n d"]
    dy: Float[Tensor, "n m"]


Family = Callable[[int, int, int, torch.Generator, torch.dtype], Problem]

# factors of x and dy: the product stays well inside the dtype's range, but below fp64 the squares of x do not
_HUGE = {
    torch.float64: (1e70, 1e70),
    torch.float32: (1e25, 1e5),
    torch.bfloat16: (1e25, 1e5),
    torch.float16: (1e3, 1e-2),
}
_TINY = {
    torch.float64: (1e-70, 1e-70),
    torch.float32: (1e-25, 1e-5),
    torch.bfloat16: (1e-25, 1e-5),
    torch.float16: (1e-4, 10.0),
}


def _normal(rows: int, columns: int, generator: torch.Generator) -> Float64[Tensor, "rows columns"]:
    return torch.randn(rows, columns, dtype=torch.float64, device=generator.device, generator=generator)


def _gaussian_pair(n: int, d: int, m: int, generator: torch.Generator) -> Problem:
    return Problem(_normal(n, d, generator), _normal(n, m, generator))


def _rounded(problem: Problem, dtype: torch.dtype) -> Problem:
    return Problem(problem.x.to(dtype), problem.dy.to(dtype))


def gaussian(n: int, d: int, m: int, generator: torch.Generator, dtype: torch.dtype) -> Problem:
    """Independent standard normal entries: pair norms alike, pairs nearly orthogonal."""
    return _rounded(_gaussian_pair(n, d, m, generator), dtype)


def heavy_tailed(n: int, d: int, m: int, generator: torch.Generator, dtype: torch.dtype) -> Problem:
    """Rows scaled by Pareto factors of index 1, at most 100: few rows hold most of the mass."""
    x, dy = _gaussian_pair(n, d, m, generator)
    uniform = torch.rand(n, 1, dtype=torch.float64, device=generator.device, generator=generator)
    return _rounded(Problem(x * (1.0 - uniform).reciprocal().clamp(max=100.0), dy), dtype)


def one_dominating(n: int, d: int, m: int, generator: torch.Generator, dtype: torch.dtype) -> Problem:
    """One row, not the first, is 1000 times as large as the others."""
    x, dy = _gaussian_pair(n, d, m, generator)
    x[n // 2 : n // 2 + 1] *= 1000.0
    return _rounded(Problem(x, dy), dtype)


def coherent(n: int, d: int, m: int, generator: torch.Generator, dtype: torch.dtype) -> Problem:
    """All pairs nearly parallel: `‖G‖` is close to `Σ w`, where a random total weight hurts most."""
    noise = _gaussian_pair(n, d, m, generator)
    return _rounded(Problem(1.0 + 0.05 * noise.x, 1.0 + 0.05 * noise.dy), dtype)


def ties(n: int, d: int, m: int, generator: torch.Generator, dtype: torch.dtype) -> Problem:
    """Entries ±1: all row norms are equal to the last bit."""
    signs = _gaussian_pair(n, d, m, generator)
    one = torch.ones((), dtype=torch.float64, device=generator.device)
    return _rounded(Problem(torch.copysign(one, signs.x), torch.copysign(one, signs.dy)), dtype)


def zero_rows(n: int, d: int, m: int, generator: torch.Generator, dtype: torch.dtype) -> Problem:
    """Every third row is zero in both factors, as padding is."""
    x, dy = _gaussian_pair(n, d, m, generator)
    x[1::3] = 0.0
    dy[1::3] = 0.0
    return _rounded(Problem(x, dy), dtype)


def low_rank_mean(n: int, d: int, m: int, generator: torch.Generator, dtype: torch.dtype) -> Problem:
    """Rows `3·mean + rank-2 part + 0.1·noise`, as activations of a trained network look."""
    x, dy = _gaussian_pair(n, d, m, generator)
    mean = 3.0 * _normal(1, d, generator)
    low_rank = _normal(n, 2, generator) @ _normal(2, d, generator)
    return _rounded(Problem(mean + low_rank + 0.1 * x, dy), dtype)


def huge(n: int, d: int, m: int, generator: torch.Generator, dtype: torch.dtype) -> Problem:
    """Gaussian rows whose squares overflow below fp64; the product itself fits."""
    return _scaled(n, d, m, generator, dtype, _HUGE[dtype])


def tiny(n: int, d: int, m: int, generator: torch.Generator, dtype: torch.dtype) -> Problem:
    """Gaussian rows whose squares underflow below fp64; the product itself fits."""
    return _scaled(n, d, m, generator, dtype, _TINY[dtype])


def _scaled(
    n: int, d: int, m: int, generator: torch.Generator, dtype: torch.dtype, factors: tuple[float, float]
) -> Problem:
    x, dy = _gaussian_pair(n, d, m, generator)
    return _rounded(Problem(x * factors[0], dy * factors[1]), dtype)


PROBLEMS: dict[str, Family] = {
    "gaussian": gaussian,
    "heavy_tailed": heavy_tailed,
    "one_dominating": one_dominating,
    "coherent": coherent,
    "ties": ties,
    "zero_rows": zero_rows,
    "low_rank_mean": low_rank_mean,
    "huge": huge,
    "tiny": tiny,
}


def make_problem(
    name: str,
    n: int,
    d: int,
    m: int,
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
) -> Problem:
    """A problem of a named family, on the device of the generator.

    Args:
        name: a key of `PROBLEMS`.
        n: rows ≥ 0.
        d: columns of x ≥ 1.
        m: columns of dy ≥ 1.
        generator: source of randomness; it advances.
        dtype: float64, float32, bfloat16 or float16.

    Raises:
        InputError: on an unknown name, a bad shape or another dtype.
    """
    if name not in PROBLEMS:
        near = difflib.get_close_matches(name, PROBLEMS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"unknown problem {name!r}{hint} Available: {', '.join(PROBLEMS)}")
    if n < 0 or d < 1 or m < 1:
        raise InputError(f"problem {name!r}: need n ≥ 0, d ≥ 1 and m ≥ 1, got n={n}, d={d}, m={m}")
    if dtype not in _HUGE:
        raise InputError(f"problem {name!r}: dtype must be float64, float32, bfloat16 or float16, got {dtype}")
    return PROBLEMS[name](n, d, m, generator, dtype)
