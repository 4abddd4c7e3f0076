"""What is compared: estimators, each as it is or in the largest size that fits a share of the bytes.

`saved` has shapes that depend on the shape of x alone, so the bytes of an estimator are found on an x of zeros, or, where
that would take long, on tensors without values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from wtacrs.estimators import Estimator, InputError, make, saved_bytes, spec
from wtacrs.estimators.composites.recommended import recommended
from wtacrs.estimators.core.sizing import missing_size, resized, size_of, sized

RECOMMENDED = {"recommended": "row-norms", "recommended_known": "known"}
"""Names of `estimators.recommended`, and the scores it is made for: at shares of the bytes only."""
# numbers of an x that is compressed faster than the operations on tensors without values are traced
_SMALL = 2**15


@lru_cache(maxsize=4096)  # the layers of a model have few shapes
def stored_bytes(estimator: Estimator, shape: tuple[int, int], dtype: torch.dtype) -> int:
    """Bytes that the estimator keeps of an x of this shape and dtype."""
    if shape[0] * shape[1] <= _SMALL:
        own = torch.Generator().manual_seed(0)
        return saved_bytes(estimator.compress(torch.zeros(shape, dtype=dtype), generator=own))
    with FakeTensorMode():
        return saved_bytes(estimator.compress(torch.empty(shape, dtype=dtype)))


def fitted(spec: str | Estimator, share: float, shape: tuple[int, int], dtype: torch.dtype) -> Estimator | None:
    """The estimator in its largest size whose stored bytes stay within a share of the bytes of x.

    Args:
        spec: an estimator or its spec; a budget in it is replaced. "recommended" and "recommended_known" are
            `estimators.recommended`, for scores that say little of ‖y_i‖ and for those that do.
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
    if isinstance(spec, str) and spec in RECOMMENDED:
        try:
            return recommended(bytes=share, shape=shape, dtype=dtype, scores=RECOMMENDED[spec])
        except InputError:  # not a single slot fits
            return None
    estimator = sized(spec)
    if size_of(estimator) is None:
        return estimator if stored_bytes(estimator, shape, dtype) <= allowed else None
    size = _largest_within(estimator, allowed, shape, dtype)
    return resized(estimator, size) if size else None


@dataclass(frozen=True)
class Candidate:
    """An estimator to compare, and the share of the bytes its size is fitted to; None: the size that it has.

    Without a share padding keeps its rows and gets score 0, as in training. With one, padding is left out and x is
    stored in bf16, so that no candidate gains by what it leaves out.
    """

    estimator: str | Estimator
    share: float | None = None

    @property
    def text(self) -> str:
        """The estimator as it was asked for."""
        return self.estimator if isinstance(self.estimator, str) else spec(self.estimator)


def candidates_from(
    specs: Iterable[str | Estimator], budgets: Sequence[int | float], shares: Sequence[float] = ()
) -> list[Candidate]:
    """Every estimator at every budget and at every share of the bytes.

    A spec without a budget is taken at every budget; one with a budget, or that needs none, as it is. For a share of the
    bytes the budget, slots or rank of the innermost estimator is set to the largest that fits; `RECOMMENDED` are taken at
    shares only.

    Raises:
        InputError: on an unusable spec, budget or share.
    """
    found: dict[Candidate, None] = {}
    for given in specs:
        if isinstance(given, str) and given in RECOMMENDED:
            if not shares:
                raise InputError(
                    f'estimator="{given}" is made for a share of the bytes: name one, as in shares=[0.3]'
                )
            continue
        if isinstance(given, str) and missing_size(given) == "budget":
            choices = [sized(given, b) for b in budgets]
        else:
            choices = [make(given)] if budgets else []
        found.update(dict.fromkeys(Candidate(choice) for choice in choices))
    for share in shares:
        for given in specs:
            fitted(given, share, (64, 64), torch.bfloat16)  # refuses now what no layer could take
            found[Candidate(given, share)] = None
    if not found:
        raise InputError("estimators must name at least one, with a budget or a share of the bytes to take it at")
    return list(found)


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
