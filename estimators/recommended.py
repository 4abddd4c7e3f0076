"""`recommended`: the estimator to use for a share of the bytes."""

from __future__ import annotations

import math

import torch

from wtacrs.estimators.control_variate import ControlVariate
from wtacrs.estimators.errors import InputError
from wtacrs.estimators.packing import BITS, packed_bytes
from wtacrs.estimators.quantized_rows import QuantizedRows
from wtacrs.estimators.systematic import Systematic

_GROUPS = (None, 128, 64, 32)
_MOST_FOR_THE_BASE = 0.12  # of the bytes
_EULER = 0.5772156649
_RANKS = (64, 32, 16, 8, 4)


def recommended(*, bytes: float, shape: tuple[int, int], dtype: torch.dtype = torch.bfloat16) -> ControlVariate:
    """Control variate, systematic sampling and dithered rows, so that a layer's input fits a share of its bytes.

    `control_variate(rows=quantized_rows(rows=systematic(budget=k), bits, group), base, rank)`: on activations of
    pre-trained and trained models it has the least variance per byte of all that was tried (see the README).

    The rank is the largest of 64, 32, 16, 8, 4 whose base takes at most 12 % of the bytes, else the mean alone. Bits
    and group minimise the variance that Laplace rows of equal norm would have, `(n/k) (1 + v) − 1`, with v the
    variance of dithering relative to that of a number (`Δ²/12`, Δ from the expected largest of a group) and k the
    number of rows that fit: at a tenth of bf16's bytes 2 bits and about two thirds of the rows, at 30 % 4 bits and
    all of them.

    Args:
        bytes: share of the bytes of `x`, in (0, 1].
        shape: `(n, d)` of the layer's input.
        dtype: of the layer's input.

    Returns:
        An estimator with a fixed number of rows, whose `saved_bytes` stay within the share.

    Raises:
        InputError: on an unusable argument, or if not even one row fits.

    >>> recommended(bytes=0.1, shape=(4096, 768)).rows.bits, recommended(bytes=0.3, shape=(4096, 768)).rows.bits
    (2, 4)
    """
    n, d = _checked(bytes, shape, dtype)
    allowed = math.floor(bytes * n * d * dtype.itemsize)
    rank = next((r for r in _RANKS if _base_bytes(n, d, r, dtype) <= _MOST_FOR_THE_BASE * allowed), 0)
    left = allowed - _base_bytes(n, d, rank, dtype) - 8  # the dither's seed
    choices = []
    for bits in BITS:
        for group in _GROUPS:
            if group is not None and group >= d:
                continue
            k = min(n, left // _row_bytes(n, d, bits, group, dtype))
            if k >= 1:
                choices.append((_variance(n, d, k, bits, group), bits, group, k))
    if not choices:
        raise InputError(
            f"bytes={bytes!r} of shape {shape} leave no room for a single row: {allowed} bytes in all"
        )
    _, bits, group, k = min(choices, key=lambda choice: choice[0])
    rows = QuantizedRows(rows=Systematic(budget=k), bits=bits, group=group)
    return ControlVariate(rows=rows, base="mean+lowrank" if rank else "mean", rank=max(rank, 1))


def _checked(share: float, shape: tuple[int, int], dtype: torch.dtype) -> tuple[int, int]:
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 < share <= 1.0:
        raise InputError(f"bytes={share!r} must be a share in (0, 1]")
    if len(shape) != 2 or not all(isinstance(size, int) and size >= 1 for size in shape):
        raise InputError(f"shape={shape!r} must be (n, d) with n, d ≥ 1")
    if not dtype.is_floating_point:
        raise InputError(f"dtype={dtype!r} must be a floating-point dtype")
    return shape


def _base_bytes(n: int, d: int, rank: int, dtype: torch.dtype) -> int:
    step = 8 if dtype == torch.float64 else 2
    return d * dtype.itemsize + -(-n // 8) + rank * (d * dtype.itemsize + n + step)


def _row_bytes(n: int, d: int, bits: int, group: int | None, dtype: torch.dtype) -> int:
    groups = 1 if group is None else -(-d // group)
    wider_steps = 6 * groups if dtype == torch.float64 else 0
    return packed_bytes(1, d, bits, group) + wider_steps + (2 if n <= 2**15 else 4)


def _variance(n: int, d: int, k: int, bits: int, group: int | None) -> float:
    size = d if group is None else group
    largest = (math.log(size) + _EULER) / math.sqrt(2.0)  # of `size` Laplace numbers of variance 1
    step = 2.0 * largest / (2**bits - 1)
    return (n / k) * (1.0 + step**2 / 12) - 1.0
