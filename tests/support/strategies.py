"""Hypothesis strategies for scores and matrices: ties, zeros, one dominating row, huge and tiny scales."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

# a handful of values makes ties and zeros frequent
_tied = st.sampled_from([0.0, 1.0, 1.0, 2.0, 3.0])
_spread = st.floats(min_value=1e-6, max_value=1.0)
_dominated = st.sampled_from([1.0, 1.0, 1e-3, 1e6])


@st.composite
def score_lists(draw: st.DrawFn, min_rows: int = 1, max_rows: int = 12) -> list[float]:
    """Scores of 1 … `max_rows` rows, at any common scale."""
    family = draw(st.sampled_from([_tied, _spread, _dominated]))
    values = draw(st.lists(family, min_size=min_rows, max_size=max_rows))
    scale = draw(st.sampled_from([1.0, 1e-200, 1e200]))
    return [value * scale for value in values]


@st.composite
def products(draw: st.DrawFn, max_rows: int = 12) -> tuple[Tensor, Tensor]:
    """`(x [n, d], dy [n, m])` in fp64, with some rows zero, repeated or dominating."""
    n = draw(st.integers(1, max_rows))
    d, m = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    dy = torch.randn(n, m, generator=generator, dtype=torch.float64)
    shape = draw(st.sampled_from(["plain", "zero rows", "ties", "dominating", "coherent"]))
    if shape == "zero rows":
        x[torch.rand(n, generator=generator) < 0.5] = 0.0
    elif shape == "ties":
        x, dy = x[:1].expand(n, d).clone(), dy[:1].expand(n, m).clone()
    elif shape == "dominating":
        x[0] *= 1e6
    elif shape == "coherent":
        x, dy = x.abs(), dy.abs()
    return x, dy
