"""Names to estimators: `register`, `make`, `spec`, `available`.

Grammar of a spec: `name` or `name(key=value, …)`; a value is a number, a quoted string, True, False, None or
another spec. Text is parsed with `ast` and never executed.

A module in one of the rooms beside this one that is named like an estimator registers it, and is imported when that
name is first looked up.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar

from wtacrs.estimators.core.base import Estimator, literal
from wtacrs.estimators.core.errors import InputError

EstimatorClass = TypeVar("EstimatorClass", bound=type[Estimator])

_REGISTRY: dict[str, type[Estimator]] = {}
_PACKAGE = __name__.split(".core.")[0]
_NO_ESTIMATORS = (f"{_PACKAGE}.core", f"{_PACKAGE}.kernels")


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
        if cls.__module__ != _modules().get(name):
            _load(name)
        taken = _REGISTRY.get(name)
        if taken is not None and taken.__qualname__ != cls.__qualname__:
            raise InputError(f"register({name!r}): the name is taken by {taken.__module__}.{taken.__qualname__}")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return enter


@cache
def _modules() -> dict[str, str]:
    """Modules of the rooms by their last name; those of estimators are named like these."""
    rooms = importlib.import_module(_PACKAGE).__path__
    found = (module.name for module in pkgutil.walk_packages(rooms, f"{_PACKAGE}."))
    return {name.rpartition(".")[2]: name for name in found if not name.startswith(_NO_ESTIMATORS)}


def _load(name: str) -> None:
    """Import the module that registers this name, if it is one of the rooms' and not imported yet."""
    if name not in _REGISTRY and name in _modules():
        importlib.import_module(_modules()[name])


def available() -> tuple[str, ...]:
    """Registered names in alphabetical order, those of this package included."""
    for name in _modules():
        _load(name)
    return tuple(sorted(_REGISTRY))


def find(name: str) -> type[Estimator] | None:
    """The class registered under `name`, None if there is none."""
    _load(name)
    return _REGISTRY.get(name)


def lookup(name: str) -> type[Estimator]:
    """The class registered under `name`.

    Raises:
        InputError: if there is none, with near names.
    """
    cls = find(name)
    if cls is None:
        near = difflib.get_close_matches(name, available(), n=3, cutoff=0.5)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise InputError(f"unknown estimator {name!r}{hint}; available: {', '.join(available())}")
    return cls


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
    return build(parse(spec_text), spec_text, **overrides)


def spec(estimator: Estimator) -> str:
    """The spec string of an estimator, with every field spelled out: `make(spec(e)) == e`."""
    return repr(estimator)


class Spec(NamedTuple):
    """A parsed spec: what is written, whether or not there is such an estimator.

    Attributes:
        name: as registered.
        fields: the values that are written, in their order; a nested spec is a `Spec`.
    """

    name: str
    fields: dict[str, Any]

    def __str__(self) -> str:
        """The text: plain values first, nested specs behind them."""
        values = sorted(self.fields.items(), key=lambda item: isinstance(item[1], Spec))
        written = ", ".join(
            f"{key}={value if isinstance(value, Spec) else literal(value)}" for key, value in values
        )
        return f"{self.name}({written})" if written else self.name


def parse(text: str) -> Spec:
    """What a spec says; whether its names and values exist is not looked at.

    Raises:
        InputError: on anything outside the grammar.

    >>> parse('control_variate(rows=crs(budget=0.3), base="mean")').fields["rows"].fields
    {'budget': 0.3}
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(f"spec {text!r} is not of the form name(key=value, …)") from None
    return _parsed(node, text)


def _parsed(node: ast.expr, text: str) -> Spec:
    if isinstance(node, ast.Name):
        return Spec(node.id, {})
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise InputError(f"spec {text!r} is not of the form name(key=value, …)")
    if node.args:
        raise InputError(f"spec {text!r}: write values with their names, as in crs(budget=0.3)")
    fields: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in fields:
            raise InputError(f"spec {text!r}: every value needs one name of its own")
        fields[keyword.arg] = _value(keyword.value, text)
    return Spec(node.func.id, fields)


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Name) and node.id in ("nan", "inf"):
        return float(node.id)  # for the field to refuse
    if isinstance(node, (ast.Name, ast.Call)):
        return _parsed(node, text)
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        value = node
    if not isinstance(value, (bool, int, float, str, type(None))):
        raise InputError(f"spec {text!r}: {ast.unparse(node)} is no number, string, True, False, None or spec")
    return value


def build(parsed: Spec, text: str, **overrides: Any) -> Estimator:
    """The estimator of a parsed spec; `text` is what the messages of errors echo.

    Raises:
        InputError: as `make`.
    """
    inside = {
        key: build(value, text) if isinstance(value, Spec) else value for key, value in parsed.fields.items()
    }
    return _construct(parsed.name, {**inside, **overrides}, text)


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
    required = [f.name for f in known.values() if f.default is f.default_factory is dataclasses.MISSING]
    missing = [key for key in required if key not in arguments]
    if missing:
        raise InputError(f"spec {text!r}: {name} needs {', '.join(missing)}, as in {name}({missing[0]}=…)")
    return cls(**arguments)
