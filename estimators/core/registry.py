"""Names to estimators: `register`, `make`, `spec`, `available`.

Grammar of a spec: `name` or `name(key=value, …)`; a value is a number, a quoted string, True, False, None or
another spec. Text is parsed with `ast` and never executed.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
from collections.abc import Callable
from typing import Any, TypeVar

from wtacrs.estimators.core.base import Estimator
from wtacrs.estimators.core.errors import InputError

EstimatorClass = TypeVar("EstimatorClass", bound=type[Estimator])

_REGISTRY: dict[str, type[Estimator]] = {}


def register(name: str) -> Callable[[EstimatorClass], EstimatorClass]:
    """Class decorator that enters a frozen dataclass into the registry under `name`.

    Raises:
        InputError: if the name is not an identifier, is taken by another class, or the class is not a frozen
            dataclass deriving from `Estimator` with `traits`.
    """

    def enter(cls: EstimatorClass) -> EstimatorClass:
        if not name.isidentifier():
            raise InputError(f"register: name={name!r} must be a Python identifier")
        if not (isinstance(cls, type) and issubclass(cls, Estimator)):
            raise InputError(f"register({name!r}): {cls!r} must derive from wtacrs.estimators.Estimator")
        parameters = vars(cls).get("__dataclass_params__")  # a parent's would not do
        if parameters is None or not parameters.frozen or parameters.repr:
            raise InputError(f"register({name!r}): {cls.__name__} must be a dataclass(frozen=True, repr=False)")
        if not hasattr(cls, "traits"):
            raise InputError(f"register({name!r}): {cls.__name__} must define traits")
        taken = _REGISTRY.get(name)
        if taken is not None and taken.__qualname__ != cls.__qualname__:
            raise InputError(f"register({name!r}): the name is taken by {taken.__module__}.{taken.__qualname__}")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return enter


def available() -> tuple[str, ...]:
    """Registered names in alphabetical order."""
    return tuple(sorted(_REGISTRY))


def lookup(name: str) -> type[Estimator]:
    """The class registered under `name`.

    Raises:
        InputError: if there is none, with near names.
    """
    if name not in _REGISTRY:
        near = difflib.get_close_matches(name, _REGISTRY, n=3, cutoff=0.5)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise InputError(f"unknown estimator {name!r}{hint}; available: {', '.join(available())}")
    return _REGISTRY[name]


def make(spec_text: str | Estimator, **overrides: Any) -> Estimator:
    """Build an estimator from its spec string.

    Args:
        spec_text: for example `"crs(budget=0.3)"`; an estimator is returned as it is, with the overrides.
        overrides: fields set on top of those in the text.

    Raises:
        InputError: on anything outside the grammar, an unknown name or field, or a refused value.

    >>> make("wta_crs(budget=0.3)")
    wta_crs(budget=0.3, winners="paper")
    >>> make("wta_crs", budget=64, winners="optimal")
    wta_crs(budget=64, winners="optimal")
    """
    if isinstance(spec_text, Estimator):
        return dataclasses.replace(spec_text, **overrides) if overrides else spec_text  # type: ignore[type-var]
    if not isinstance(spec_text, str):
        raise InputError(f"spec must be a string such as 'crs(budget=0.3)', got {type(spec_text).__name__}")
    return _build(_parse(spec_text), spec_text, overrides)


def missing_fields(spec_text: str) -> tuple[str, ...]:
    """Required fields of the named estimator that a spec leaves out, as `("budget",)` for `"crs"`.

    Raises:
        InputError: if the text is not a spec or names no estimator.
    """
    tree = _parse(spec_text)
    if isinstance(tree, ast.Name):
        name, given = tree.id, set()
    elif isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
        name, given = tree.func.id, {keyword.arg for keyword in tree.keywords}
    else:
        raise InputError(f"spec {spec_text!r} is not of the form name(key=value, …)")
    return tuple(key for key in _required(lookup(name)) if key not in given)


def spec(estimator: Estimator) -> str:
    """The spec string of an estimator, with every field spelled out: `make(spec(e)) == e`."""
    return repr(estimator)


def _parse(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(f"spec {text!r} is not of the form name(key=value, …)") from None


def _required(cls: type[Estimator]) -> list[str]:
    missing = dataclasses.MISSING
    return [
        f.name
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if f.default is missing and f.default_factory is missing
    ]


def _build(node: ast.expr, text: str, overrides: dict[str, Any]) -> Estimator:
    if isinstance(node, ast.Name):
        return _construct(node.id, dict(overrides), text)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise InputError(f"spec {text!r} is not of the form name(key=value, …)")
    if node.args:
        raise InputError(f"spec {text!r}: write values with their names, as in crs(budget=0.3)")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in arguments:
            raise InputError(f"spec {text!r}: every value needs one name of its own")
        arguments[keyword.arg] = _value(keyword.value, text)
    return _construct(node.func.id, {**arguments, **overrides}, text)


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Name) and node.id in ("nan", "inf"):
        return float(node.id)  # for the field to refuse
    if isinstance(node, (ast.Name, ast.Call)):
        return _build(node, text, {})
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        value = node
    if not isinstance(value, (bool, int, float, str, type(None))):
        raise InputError(f"spec {text!r}: {ast.unparse(node)} is no number, string, True, False, None or spec")
    return value


def _construct(name: str, arguments: dict[str, Any], text: str) -> Estimator:
    cls = lookup(name)
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in arguments:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(
                f"spec {text!r}: {name} has no field {key!r}{hint}; it has: {', '.join(known) or 'none'}"
            )
    missing = [key for key in _required(cls) if key not in arguments]
    if missing:
        raise InputError(f"spec {text!r}: {name} needs {', '.join(missing)}, as in {name}({missing[0]}=…)")
    return cls(**arguments)
