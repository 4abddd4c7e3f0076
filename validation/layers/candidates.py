"""The bytes that an estimator stores, and the largest size that fits some bytes.

`saved` has shapes that depend on the shape of x alone, so the bytes of an estimator are found on tensors without values.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from wtacrs.estimators import Estimator, InputError, saved_bytes
from wtacrs.estimators.composites.recommended import recommended
from wtacrs.estimators.core.sizing import resized, size_of, sized

RECOMMENDED = "recommended"


@lru_cache(maxsize=4096)  # the layers of a model have few shapes
def stored_bytes(estimator: Estimator, shape: tuple[int, int], dtype: torch.dtype) -> int:
    """Bytes that the estimator keeps of an x of this shape and dtype."""
    with FakeTensorMode():
        return saved_bytes(estimator.compress(torch.empty(shape, dtype=dtype)))


def fitted(spec: str | Estimator, share: float, shape: tuple[int, int], dtype: torch.dtype) -> Estimator | None:
    """The estimator in its largest size whose stored bytes stay within a share of the bytes of x.

    Args:
        spec: an estimator or its spec; a budget in it is replaced. "recommended" is `estimators.recommended`.
        share: of the bytes of x, in (0, 1].
        shape: `[n, d]` of x.
        dtype: of x.

    Returns:
        None if not even the smallest fits. One without a size is returned as it is, if it fits.

    Raises:
        InputError: on an unusable spec or share.
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 < share <= 1.0:
        raise InputError(f"bytes={share!r} must be a share of the bytes in (0, 1]")
    allowed = int(share * shape[0] * shape[1] * dtype.itemsize)
    if spec == RECOMMENDED:
        try:
            return recommended(bytes=share, shape=shape, dtype=dtype)
        except InputError:  # not a single slot fits
            return None
    estimator = sized(spec)
    if size_of(estimator) is None:
        return estimator if stored_bytes(estimator, shape, dtype) <= allowed else None
    size = _largest_within(estimator, allowed, shape, dtype)
    return resized(estimator, size) if size else None


def _largest_within(estimator: Estimator, allowed: int, shape: tuple[int, int], dtype: torch.dtype) -> int:
    """The largest size whose bytes are allowed, 0 if there is none; few trials, since bytes grow evenly with size."""

    def over(size: int) -> int:
        return stored_bytes(resized(estimator, size), shape, dtype) - allowed

    low, high = 1, _largest(estimator, shape)
    excess_low, excess_high = over(low), over(high)
    if excess_low > 0:
        return 0
    if excess_high <= 0:
        return high
    while high - low > 1:  # low fits, high does not
        guess = low + (high - low) * -excess_low // (excess_high - excess_low)
        guess = min(max(guess, low + 1), high - 1)
        found = over(guess)
        if found <= 0:
            low, excess_low = guess, found
            if high - low > 1 and (above := over(low + 1)) > 0:
                high, excess_high = low + 1, above
        else:
            high, excess_high = guess, found
            if high - low > 1 and (below := over(high - 1)) <= 0:
                low, excess_low = high - 1, below
    return low


def _largest(estimator: Estimator, shape: tuple[int, int]) -> int:
    found = size_of(estimator)
    assert found is not None
    n, d = shape
    return {"budget": n, "slots": 8 * n, "rank": min(n, d)}[found[0]]
