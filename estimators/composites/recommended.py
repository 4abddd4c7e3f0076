"""`recommended`: the estimator to use for a share of the bytes."""

from __future__ import annotations

import math
from typing import Any

import torch

from wtacrs.estimators.composites.control_variate import ControlVariate
from wtacrs.estimators.composites.dithered_rows import DitheredRows
from wtacrs.estimators.composites.hadamard_rotation import HadamardRotation
from wtacrs.estimators.composites.mixed_precision_rows import MixedPrecisionRows
from wtacrs.estimators.composites.slots import BITS_PER_SLOT, MOST_SLOTS
from wtacrs.estimators.composites.widths import MOST_SLOTS as MOST_EVEN
from wtacrs.estimators.core.base import Estimator, plain
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.kernels.grid import grid_of

SCORES = ("row-norms", "known")
_GROUPS = (None, 256, 128, 64)
_MOST_FOR_THE_BASE = 0.1  # of the bytes
_RANKS = (8, 4)
_SEED_BYTES = 8
_FEW_HEAVY = 0.25
"""Share of the rows: fewer than that in twice as many bits cost more time than they save variance."""
_COUNT_BYTES = 4


def recommended(
    *,
    bytes: float,
    shape: tuple[int, int],
    dtype: torch.dtype = torch.bfloat16,
    scores: str = "row-norms",
) -> Estimator[Any]:
    """The estimator with the least variance at next to no time, so that a layer's input fits a share of its bytes.

    With scores that say little of ‖y_i‖, as row norms do, bits are best spread evenly, which is fast too:
    `dithered_rows` with as many slots as fit: at 30 % of bf16's bytes all rows in 4 bits, at a tenth 0.74 of them in
    2 bits. A product of rows in two widths is slower, so that no rows are heavy where it would be less than a quarter.

    With scores close to `‖x_i‖‖y_i‖` (the oracle's, or remembered gradient norms that still hold) bits belong to heavy
    rows: `control_variate(rows=hadamard_rotation(rows=mixed_precision_rows(slots, group)), base, rank)`, at several times
    the time. The rank is the larger of 8 and 4 whose base takes at most a tenth of the bytes, else the mean alone; slots
    take the rest, in the group that has the least variance for Gaussian rows.

    Args:
        bytes: share of the bytes of `x`, in (0, 1].
        shape: `(n, d)` of the layer's input.
        dtype: of the layer's input.
        scores: "row-norms" or "known": what rows are scored by.

    Returns:
        An estimator with fixed shapes, whose `saved_bytes` stay within the share.

    Raises:
        InputError: on an unusable argument, or if not even one row fits.

    >>> [recommended(bytes=share, shape=(4096, 1024)).slots for share in (0.3, 0.1)]
    [8192, 3048]
    >>> recommended(bytes=0.1, shape=(4096, 768), scores="known").rows.rows.slots
    2842
    """
    share, (n, d) = plain(bytes), _checked(plain(bytes), tuple(map(plain, shape)), dtype)
    if scores not in SCORES:
        raise InputError(f"scores={scores!r} must be one of {', '.join(SCORES)}")
    allowed = math.floor(share * n * d * dtype.itemsize)
    found = (_dithered if scores == "row-norms" else _mixed)(allowed, n, d, dtype)
    if found is None:
        raise InputError(
            f"bytes={share!r} of shape {(n, d)} leave no room for a single row: {allowed} bytes in all"
        )
    return found


def _checked(share: float, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[int, int]:
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 < share <= 1.0:
        raise InputError(f"bytes={share!r} must be a share in (0, 1]")
    if len(shape) != 2 or not all(isinstance(size, int) and size >= 1 for size in shape):
        raise InputError(f"shape={shape!r} must be (n, d) with n, d ≥ 1")
    if not dtype.is_floating_point:
        raise InputError(f"dtype={dtype!r} must be a floating-point dtype")
    return shape[0], shape[1]


def _dithered(allowed: int, n: int, d: int, dtype: torch.dtype) -> Estimator[Any] | None:
    """As many slots as fit, in whole ones."""
    grid = grid_of(d)
    own, code = grid.groups + _step_bytes(dtype), grid.padded // 4
    left = allowed - d * dtype.itemsize - _SEED_BYTES - _COUNT_BYTES - 3 * -(-n // 8)
    slots = left // (code + own)
    if slots > n:
        slots = min((left - n * own) // code, MOST_EVEN * n)
        even = n * (1 if slots < 2 * n else 2 if slots < 4 * n else 4)
        slots = even if slots < (1 + _FEW_HEAVY) * even else slots
    return DitheredRows(slots=slots) if slots >= 1 else None


def _mixed(allowed: int, n: int, d: int, dtype: torch.dtype) -> Estimator[Any] | None:
    """As many slots as fit, in the group of the least relative variance."""
    rank = next((r for r in _RANKS if _base_bytes(n, d, r, dtype) <= _MOST_FOR_THE_BASE * allowed), 0)
    left = allowed - _base_bytes(n, d, rank, dtype) - _SEED_BYTES - -(-n // 2)
    found: list[tuple[float, Estimator[Any]]] = []
    for group in _GROUPS:
        slots = _slots_within(left, n, d, group, dtype)
        if slots < 1 or (group is not None and group >= d):
            continue
        rows = HadamardRotation(rows=MixedPrecisionRows(slots=slots, group=group))
        levels = 4.0 ** max(slots / n, 1.0) - 1.0
        error = _largest_square(d if group is None else group) / (3.0 * levels**2)
        base = "mean+lowrank" if rank else "mean"
        estimator = ControlVariate(rows=rows, base=base, rank=max(rank, 1))
        found.append(((1.0 + error) / min(slots / n, 1.0) - 1.0, estimator))
    return min(found, key=lambda choice: choice[0])[1] if found else None


def _largest_square(count: int) -> float:
    """About the largest square of so many standard normal numbers."""
    return 2.0 * math.log(2.0 * count)


def _base_bytes(n: int, d: int, rank: int, dtype: torch.dtype) -> int:
    return d * dtype.itemsize + -(-n // 8) + rank * (d * dtype.itemsize + n + _step_bytes(dtype))


def _step_bytes(dtype: torch.dtype) -> int:
    return 8 if dtype == torch.float64 else 2


def _slots_within(left: int, n: int, d: int, group: int | None, dtype: torch.dtype) -> int:
    """The most slots whose codes, and steps of as many rows but at most n, fit."""
    code = -(-d * BITS_PER_SLOT // 8)
    steps = _step_bytes(dtype) * (1 if group is None else -(-d // group))
    slots = max(left, 0) // (code + steps)
    return slots if slots <= n else min((left - n * steps) // code, MOST_SLOTS * n)
