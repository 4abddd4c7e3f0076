"""`recommended`: the estimator to use for a share of the bytes."""

from __future__ import annotations

import math

import torch

from wtacrs.estimators.composites.control_variate import ControlVariate
from wtacrs.estimators.composites.hadamard_rotation import HadamardRotation
from wtacrs.estimators.composites.mixed_precision_rows import MixedPrecisionRows
from wtacrs.estimators.composites.slots import BITS_PER_SLOT, MOST_SLOTS
from wtacrs.estimators.core.base import plain
from wtacrs.estimators.core.errors import InputError

_GROUPS = (None, 256, 128, 64)
_MOST_FOR_THE_BASE = 0.1  # of the bytes
_RANKS = (8, 4)
_SEED_BYTES = 8


def recommended(*, bytes: float, shape: tuple[int, int], dtype: torch.dtype = torch.bfloat16) -> ControlVariate:
    """Control variate, rotation and mixed precision, so that a layer's input fits a share of its bytes.

    `control_variate(rows=hadamard_rotation(rows=mixed_precision_rows(slots=S, group)), base, rank)`: on activations
    of pre-trained and trained models it has the least variance per byte of all that was tried (see the README).

    The rank is the larger of 8 and 4 whose base takes at most a tenth of the bytes, else the mean alone. Slots take the
    rest: at a tenth of bf16's bytes fewer than one to a row, so that light rows are sampled; at 30 % two, so that all
    rows are kept. The group minimises the variance that Gaussian rows of equal norm would have, to which the rotation
    makes all rows similar.

    Args:
        bytes: share of the bytes of `x`, in (0, 1].
        shape: `(n, d)` of the layer's input.
        dtype: of the layer's input.

    Returns:
        An estimator with a fixed number of slots, whose `saved_bytes` stay within the share.

    Raises:
        InputError: on an unusable argument, or if not even one slot fits.

    >>> [recommended(bytes=share, shape=(4096, 768)).rows.rows.slots for share in (0.1, 0.3)]
    [2842, 9318]
    """
    bytes, shape = plain(bytes), tuple(map(plain, shape))
    n, d = _checked(bytes, shape, dtype)
    allowed = math.floor(bytes * n * d * dtype.itemsize)
    rank = next((r for r in _RANKS if _base_bytes(n, d, r, dtype) <= _MOST_FOR_THE_BASE * allowed), 0)
    left = allowed - _base_bytes(n, d, rank, dtype) - _SEED_BYTES - -(-n // 2)
    choices = []
    for group in _GROUPS:
        if group is not None and group >= d:
            continue
        slots = _slots_within(left, n, d, group, dtype)
        if slots >= 1:
            choices.append((_variance(n, d, slots, group), slots, group))
    if not choices:
        raise InputError(
            f"bytes={bytes!r} of shape {shape} leave no room for a single row: {allowed} bytes in all"
        )
    _, slots, group = min(choices, key=lambda choice: choice[0])
    rows = HadamardRotation(rows=MixedPrecisionRows(slots=slots, group=group))
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
    return d * dtype.itemsize + -(-n // 8) + rank * (d * dtype.itemsize + n + _step_bytes(dtype))


def _step_bytes(dtype: torch.dtype) -> int:
    return 8 if dtype == torch.float64 else 2


def _slots_within(left: int, n: int, d: int, group: int | None, dtype: torch.dtype) -> int:
    """The most slots whose codes, and steps of as many rows but at most n, fit."""
    code = -(-d * BITS_PER_SLOT // 8)
    steps = _step_bytes(dtype) * (1 if group is None else -(-d // group))
    slots = max(left, 0) // (code + steps)
    return slots if slots <= n else min((left - n * steps) // code, MOST_SLOTS * n)


def _variance(n: int, d: int, slots: int, group: int | None) -> float:
    """Relative variance of Gaussian rows of equal norm with slots/n slots each, a fraction of a slot included."""
    largest = 2.0 * math.log(2.0 * (d if group is None else group))  # about, of the squares of that many numbers
    levels = 4.0 ** max(slots / n, 1.0) - 1.0
    return (1.0 + largest / (3.0 * levels**2)) / min(slots / n, 1.0) - 1.0
