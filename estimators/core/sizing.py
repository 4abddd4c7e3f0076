"""The size of an estimator: which field sets it, how to read, write or leave it out, and what a budget means in rows.

The size is the field `budget` (rows kept) or `slots` (of two bits a number) of the innermost estimator that has one,
else the field `rank` (directions kept); a composite so has the size of what it wraps. The width of a number (`bits`)
is no size: it takes three values and says how a number is stored, not how many.

A spec may leave its size out wherever it stands: `control_variate(rows=systematic)`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from functools import reduce
from typing import Any

from wtacrs.estimators.core.base import Estimator, plain, spec_name
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.registry import build, defaults, maker
from wtacrs.estimators.core.specs import Spec, parse, references_in

SIZES = ("budget", "slots", "rank")
# a rank counts only where nothing inside has rows or slots: of a control variate it is that of the base
_BY_RANK = (("budget", "slots"), ("rank",))

# 0.29 * 100 is 28.999999999999996 in floating point, and a user who asks for 29 % of 100 rows means 29
_ROUNDING_SLACK = 1e-9


def check_budget(budget: int | float, owner: str) -> None:
    """Refuse a budget that is neither a fraction of the rows nor a number of rows.

    Args:
        budget: a float in (0, 1] is the fraction of rows kept, an int ≥ 1 the number of rows kept.
        owner: the estimator's name, for the message.

    Raises:
        InputError: for any other value; `1` means one row and `1.0` means all rows.
    """
    accepted = "a float in (0, 1] (fraction of the rows) or an int ≥ 1 (number of rows)"
    if isinstance(budget, bool) or not isinstance(budget, (int, float)):
        raise InputError(f"{owner}: budget={budget!r} must be {accepted}")
    if not (budget >= 1 if isinstance(budget, int) else 0.0 < budget <= 1.0):
        raise InputError(f"{owner}: budget={budget!r} must be {accepted}")


def rows_for(budget: int | float, n: int) -> int:
    """Number of rows k that a checked `budget` keeps of `n` rows.

    A fraction is rounded down, but never below one row while there is one; a number of rows is capped at n.

    >>> rows_for(0.3, 10), rows_for(0.29, 100), rows_for(0.01, 10), rows_for(32, 10), rows_for(1.0, 7)
    (3, 29, 1, 10, 7)
    """
    budget = plain(budget)
    wanted = budget if isinstance(budget, int) else math.floor(budget * n + _ROUNDING_SLACK)
    return min(max(int(wanted), 1), n)


def check_slots(slots: int | float, most: int, owner: str) -> None:
    """Refuse slots that are neither a number of slots nor slots per row.

    Args:
        slots: an int ≥ 1 is the number of slots, a float in (0, most] is slots per row.
        most: slots that a row can use.
        owner: the estimator's name, for the message.

    Raises:
        InputError: for any other value; `1` means one slot and `1.0` means one for every row.
    """
    number = isinstance(slots, (int, float)) and not isinstance(slots, bool)
    if not number or not (slots >= 1 if isinstance(slots, int) else 0.0 < slots <= most):
        accepted = f"an int ≥ 1 (number of slots) or a float in (0, {most}] (slots per row)"
        raise InputError(f"{owner}: slots={slots!r} must be {accepted}")


def slots_for(slots: int | float, most: int, n: int) -> int:
    """Number of slots that checked `slots` are for n rows: at least 1 while there is a row, at most `most` for each.

    >>> slots_for(0.5, 4, 10), slots_for(0.01, 4, 10), slots_for(64, 4, 10)
    (5, 1, 40)
    """
    wanted = slots if isinstance(slots, int) else max(math.floor(slots * n + _ROUNDING_SLACK), 1)
    return min(wanted, most * n)


def rows_kept(estimator: Estimator, n: int) -> int | None:
    """Number of rows that an estimator keeps of `n`; None if its size is no budget: slots, a rank, or none at all.

    Looks at fields alone, and so costs microseconds and compiles: layers ask in every forward pass. An estimator that is
    not registered, hashable or a dataclass is answered too.

    >>> rows_kept(sized("quantized_rows(rows=crs)", 0.3), 10), rows_kept(sized("prac(rank=4)"), 10)
    (3, None)
    """
    found = _rows_or_slots(estimator)
    return rows_for(found[1], n) if found is not None and found[0] == "budget" else None


def sized_for(estimator: Estimator, n: int) -> Estimator:
    """The same estimator with as many rows or slots, whatever the input, as it would keep of n rows.

    Only a size that is a share of the rows changes. Looks at fields alone, as `rows_kept`.

    Args:
        estimator: any.
        n: rows, at least 1.

    >>> sized_for(sized("quantized_rows(rows=crs)", 0.3), 10).rows, sized_for(sized("crs", 7), 10)
    (crs(budget=3), crs(budget=7))
    """
    for name, value in _fields(estimator).items():
        if isinstance(value, Estimator) and _rows_or_slots(value) is not None:
            return dataclasses.replace(estimator, **{name: sized_for(value, n)})  # type: ignore[type-var]
    found = _rows_or_slots(estimator)
    if found is None or isinstance(found[1], int):
        return estimator
    wanted = max(math.floor(found[1] * n + _ROUNDING_SLACK), 1)
    return dataclasses.replace(estimator, **{found[0]: wanted})  # type: ignore[type-var]


def exact_at(estimator: Estimator, n: int) -> bool:
    """Whether an estimator keeps all of `n` rows, and the estimate is then the exact product.

    >>> [exact_at(sized("wta_crs", size), 10) for size in (0.3, 1.0, 10)], exact_at(sized("crs", 1.0), 10)
    ([False, True, True], False)
    """
    return estimator.traits.exact_at_full_budget and rows_kept(estimator, n) == n


def _rows_or_slots(estimator: Estimator) -> tuple[str, int | float] | None:
    """The innermost of these two sizes, as `size_of` finds it, without spec and registry."""
    values = _fields(estimator)
    for value in values.values():
        if isinstance(value, Estimator) and (inner := _rows_or_slots(value)) is not None:
            return inner
    for name in _BY_RANK[0]:
        size = values.get(name)
        if isinstance(size, (int, float)) and not isinstance(size, bool):
            return name, size
    return None


def _fields(estimator: Estimator) -> dict[str, Any]:
    return {name: getattr(estimator, name, None) for name in getattr(estimator, "__dataclass_fields__", ())}


def size_of(given: Estimator | str) -> tuple[str, int | float] | None:
    """The field that sets the size and its value; None without one, and for a spec that leaves it out.

    Args:
        given: an estimator, or a spec whose names need not be registered.

    Raises:
        InputError: if the text is no spec.

    >>> size_of("control_variate(rank=4, rows=crs(budget=0.3))"), size_of("prac(rank=16)"), size_of("fp8")
    (('budget', 0.3), ('rank', 16), None)
    """
    parsed = _parsed(given)
    path = _path(parsed)
    if path is None:
        return None
    *outside, name = path
    part = _at(parsed, outside)
    value = part.fields.get(name, defaults(part.name).get(name))
    return (name, value) if isinstance(value, (int, float)) else None


def budget_of(given: Estimator | str) -> int | float | None:
    """The budget, as `size_of`; None for what is sized in slots or by a rank."""
    found = size_of(given)
    return found[1] if found is not None and found[0] == "budget" else None


def missing_size(text: str) -> str | None:
    """The size field that a spec leaves out, None if it has its size or needs none.

    Raises:
        InputError: if the text is no spec, or a reference in it cannot be imported.

    >>> missing_size("control_variate(rows=crs)"), missing_size("crs(budget=0.3)"), missing_size("exact")
    ('budget', None, None)
    """
    path = _path(_found(text))
    return path[-1] if path is not None and size_of(text) is None else None


def sized(given: Estimator | str, size: int | float = 1) -> Estimator:
    """The estimator of a spec, with this size where the spec leaves it out.

    Raises:
        InputError: on an unusable spec or size.

    >>> sized("control_variate(rank=4, rows=crs)", 0.3).rows, sized("crs(budget=8)", 0.3)
    (crs(budget=0.3), crs(budget=8))
    """
    if isinstance(given, Estimator):
        return given
    parsed = _found(given)
    path = _path(parsed)
    if path is not None and size_of(given) is None:
        parsed = _with(parsed, path, size)
    return build(parsed, given)


def sized_part(estimator: Estimator) -> Estimator | None:
    """The estimator itself or the one inside it whose field is the size; None without a size."""
    path = _path(_parsed(estimator))
    return None if path is None else reduce(getattr, path[:-1], estimator)


def resized(estimator: Estimator, size: int | float) -> Estimator:
    """The same with another size.

    Raises:
        InputError: if it has no size, or refuses this one.
    """
    path = _path(_parsed(estimator))
    if path is None:
        raise InputError(f"{estimator!r} has no budget, slots or rank to change")
    return _replaced(estimator, path, size)


def sizeless(given: Estimator | str, sizes: Iterable[str] = SIZES) -> str:
    """A spec without its size and without fields at their defaults: what it has in common at all sizes.

    Nested specs stand behind plain values, so that the order in which fields were written does not matter.

    Args:
        given: an estimator or a spec, whose names need not be registered.
        sizes: fields to leave out if they set the size; another size is part of the name.

    Raises:
        InputError: if the text is no spec.

    >>> sizeless('control_variate(base="mean", rows=quantized_rows(bits=2, rows=systematic(budget=32)))')
    'control_variate(base="mean", rows=quantized_rows(bits=2, rows=systematic))'
    >>> sizeless("systematic"), sizeless('systematic(budget=0.3, order="random")'), sizeless("prac(rank=16)")
    ('systematic', 'systematic', 'prac')
    """
    parsed = _parsed(given)
    path = _path(parsed)
    if path is not None and path[-1] in tuple(sizes):
        parsed = _without(parsed, path)
    return str(_brief(parsed))


def _parsed(given: Estimator | str) -> Spec:
    if isinstance(given, str):
        return parse(given)
    fields = {f.name: getattr(given, f.name) for f in dataclasses.fields(given)}  # type: ignore[arg-type]
    return Spec(
        spec_name(type(given)), {k: _parsed(v) if isinstance(v, Estimator) else v for k, v in fields.items()}
    )


def _found(text: str) -> Spec:
    """A parsed spec whose references have been imported, so that their fields are known."""
    parsed = parse(text)
    for reference in references_in(parsed):
        maker(reference)
    return parsed


def _path(parsed: Spec) -> tuple[str, ...] | None:
    """Names of the fields that lead to the size."""
    return next((path for names in _BY_RANK if (path := _innermost(parsed, names)) is not None), None)


def _innermost(parsed: Spec, names: tuple[str, ...]) -> tuple[str, ...] | None:
    for key, value in parsed.fields.items():
        if isinstance(value, Spec) and (inner := _innermost(value, names)) is not None:
            return (key, *inner)
    known = {*parsed.fields, *defaults(parsed.name)}
    written = parsed.fields
    return next(((n,) for n in names if n in known and isinstance(written.get(n, 1), (int, float))), None)


def _at(parsed: Spec, path: Iterable[str]) -> Spec:
    return reduce(lambda inner, key: inner.fields[key], path, parsed)


def _with(parsed: Spec, path: tuple[str, ...], size: int | float) -> Spec:
    key, *rest = path
    value = _with(parsed.fields[key], tuple(rest), size) if rest else size
    return Spec(parsed.name, {**parsed.fields, key: value})


def _without(parsed: Spec, path: tuple[str, ...]) -> Spec:
    key, *rest = path
    fields = dict(parsed.fields)
    if rest:
        fields[key] = _without(fields[key], tuple(rest))
    else:
        fields.pop(key, None)
    return Spec(parsed.name, fields)


def _brief(parsed: Spec) -> Spec:
    """In the order of the estimator's fields, without those at their defaults."""
    known = defaults(parsed.name)
    order = {name: place for place, name in enumerate(known)}
    fields = {}
    for key, value in sorted(parsed.fields.items(), key=lambda item: order.get(item[0], len(order))):
        if value != known.get(key, dataclasses.MISSING):
            fields[key] = _brief(value) if isinstance(value, Spec) else value
    return Spec(parsed.name, fields)


def _replaced(estimator: Estimator, path: tuple[str, ...], size: int | float) -> Estimator:
    key, *rest = path
    value = _replaced(getattr(estimator, key), tuple(rest), size) if rest else size
    return dataclasses.replace(estimator, **{key: value})  # type: ignore[type-var]
