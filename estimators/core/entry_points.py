"""Estimators of installed packages: the entry points of the group `wtacrs.estimators`.

The name of an entry point is the estimator's registry name, its value `module:Class`. In the package's pyproject.toml:

    [project.entry-points."wtacrs.estimators"]
    stratified = "acme.rows:Stratified"
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points

GROUP = "wtacrs.estimators"


def entry_point_names() -> tuple[str, ...]:
    """Names that installed packages declare; nothing is imported."""
    return tuple(_declared(tuple(sys.path)))


def load_entry_point(name: str) -> object:
    """What the entry point of this name holds; the same object in every call.

    Raises:
        EntryPointError: if it cannot be imported, or two distributions declare it.
        KeyError: if none is declared.
    """
    found = _loaded(name, tuple(sys.path))
    if isinstance(found, EntryPointError):
        raise found
    return found


def distribution_of(name: str) -> str:
    """The distributions that declare an entry point."""
    return " and ".join(sorted({_distribution(point) for point in _declared(tuple(sys.path))[name]}))


class EntryPointError(Exception):
    """An entry point that cannot be used; the message names its distribution and the reason."""


@cache
def _declared(path: tuple[str, ...]) -> dict[str, list[EntryPoint]]:
    """Entry points by name, for this sys.path."""
    del path
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, []).append(point)
    return found


@cache  # a broken one is not imported again and again
def _loaded(name: str, path: tuple[str, ...]) -> object:
    points = _declared(path)[name]
    if len({point.value for point in points}) > 1:
        return EntryPointError(f"estimator {name!r} is declared by two distributions, {distribution_of(name)}")
    try:
        return points[0].load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may call sys.exit
        told = f"cannot be loaded from {points[0].value}: {type(error).__name__}: {error}"
        return EntryPointError(f"estimator {name!r} of the distribution {distribution_of(name)} {told}")


def _distribution(point: EntryPoint) -> str:
    return "?" if point.dist is None else point.dist.name
