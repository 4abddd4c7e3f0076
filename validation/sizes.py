"""The size of an estimator: how many rows, slots or directions it keeps, and the largest that fits some bytes.

A composite has the size of what it wraps. `saved` has shapes that depend on the shape of x alone, so the bytes of an
estimator are found on tensors without values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from wtacrs.estimators import Estimator, InputError, make, recommended, saved_bytes

RECOMMENDED = "recommended"
_SIZES = ("budget", "slots", "rank")


def size_of(estimator: Estimator) -> tuple[str, int | float] | None:
    """The field that sets the size, and its value: `budget` or `slots` of the innermost that has one, else `rank`."""
    for names in (_SIZES[:2], _SIZES[2:]):
        for inner in _nested(estimator):
            for name in names:
                if isinstance(value := getattr(inner, name, None), (int, float)):
                    return name, value
    return None


def resized(estimator: Estimator, size: int | float) -> Estimator:
    """The same with another size.

    Raises:
        InputError: if it has no size, or refuses this one.
    """
    found = size_of(estimator)
    if found is None:
        raise InputError(f"{estimator!r} has no budget, slots or rank to change")
    return _replaced(estimator, found[0], size)


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
    low, high = 0, _largest(estimator, shape)
    while low < high:
        middle = (low + high + 1) // 2
        fits = stored_bytes(resized(estimator, middle), shape, dtype) <= allowed
        low, high = (middle, high) if fits else (low, middle - 1)
    return resized(estimator, low) if low else None


def sized(spec: str | Estimator) -> Estimator:
    """An estimator from a spec that may leave out its budget, slots or rank; these are then 1.

    Raises:
        InputError: on an unusable spec.
    """
    from wtacrs.estimators.registry import missing_fields

    if isinstance(spec, Estimator):
        return spec
    return make(spec, **{name: 1 for name in missing_fields(spec) if name in _SIZES})


def at_budgets(estimators: Iterable[str | Estimator], budgets: Sequence[int | float] | None) -> list[Estimator]:
    """Every estimator at every budget: one without a budget of its own appears once, repetitions are dropped.

    Args:
        estimators: specs or estimators; a budget they have is replaced.
        budgets: None to leave them as they are.

    Raises:
        InputError: on an unusable spec or budget.
    """
    expanded: dict[Estimator, None] = {}
    for given in estimators:
        if not budgets:
            expanded[make(given)] = None
            continue
        estimator = sized(given)
        found = size_of(estimator)
        choices = [resized(estimator, b) for b in budgets] if found and found[0] == "budget" else [make(given)]
        expanded.update(dict.fromkeys(choices))
    return list(expanded)


def _largest(estimator: Estimator, shape: tuple[int, int]) -> int:
    found = size_of(estimator)
    assert found is not None
    n, d = shape
    return {"budget": n, "slots": 8 * n, "rank": min(n, d)}[found[0]]


def _nested(estimator: Estimator) -> list[Estimator]:
    """The innermost first."""
    fields = dataclasses.fields(estimator)  # type: ignore[arg-type]
    inner = [value for f in fields if isinstance(value := getattr(estimator, f.name), Estimator)]
    return [one for value in inner for one in _nested(value)] + [estimator]


def _replaced(estimator: Estimator, name: str, size: int | float) -> Estimator:
    for f in dataclasses.fields(estimator):  # type: ignore[arg-type]
        value = getattr(estimator, f.name)
        if isinstance(value, Estimator) and any(hasattr(inner, name) for inner in _nested(value)):
            return dataclasses.replace(estimator, **{f.name: _replaced(value, name, size)})  # type: ignore[type-var]
    return dataclasses.replace(estimator, **{name: size})  # type: ignore[type-var]
