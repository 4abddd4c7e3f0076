"""Rows in samples: what mixes the tokens of a sample, but no two samples."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wtacrs.estimators.core.errors import InputError


def check_tokens(tokens: int | None, owner: str) -> None:
    """Refuse what is no length of a sample.

    Raises:
        InputError: unless `tokens` is None or an int ≥ 1.
    """
    if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1):
        raise InputError(f"{owner}: tokens={tokens!r} must be None (one sample) or an int ≥ 1 (rows of a sample)")


def in_samples(matrix: Float[Tensor, "n c"], tokens: int | None) -> Float[Tensor, "b t c"]:
    """The rows in samples of so many tokens, zero rows at the end of a last, shorter one; None for one sample.

    >>> in_samples(torch.ones(5, 2), 3).shape
    torch.Size([2, 3, 2])
    """
    n, columns = matrix.shape
    length = n if tokens is None else tokens
    return torch.nn.functional.pad(matrix, (0, 0, 0, -n % max(length, 1))).reshape(-1, length, columns)
