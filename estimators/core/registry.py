"""Names and references to estimators: `register`, `make`, `spec`, `available`.

A name is registered by a module in one of the rooms beside this one that is named like it and is imported when the name
is first looked up, by `@register` in a module of somebody else, or by an entry point of an installed package
(`wtacrs.estimators.core.entry_points`).

A reference, `PATH.py:NAME` or `package.module:NAME`, stands wherever a name may stand. It names a class derived from
`Estimator`, a function that returns an estimator and takes the values of the spec as keywords, or an estimator, whose
fields the values replace. To make it imports the file, which runs it: make specs of people you trust.
`spec` of an estimator of such a class gives the reference to its class, as it was last written, with all fields.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Iterable
from functools import cache, partial
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from wtacrs.estimators.core.base import Estimator, spec_name
from wtacrs.estimators.core.entry_points import (
    EntryPointError,
    distribution_of,
    entry_point_names,
    load_entry_point,
)
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.references import attribute, open_module, reference_to, split_reference
from wtacrs.estimators.core.specs import Spec, parse

EstimatorClass = TypeVar("EstimatorClass", bound=type[Estimator])

_REGISTRY: dict[str, type[Estimator]] = {}
_PACKAGE = __name__.split(".core.")[0]
_NO_ESTIMATORS = (f"{_PACKAGE}.core", f"{_PACKAGE}.kernels")
_NEEDED = (
    "an Estimator class, an estimator or a function that returns one is needed; products and layers are for "
    "`wtacrs check` and `wtacrs compare`"
)


def check_known(arguments: Iterable[str], known: Collection[str], owner: str, noun: str = "argument") -> None:
    """Refuse a name that is not among the known ones.

    Raises:
        InputError: with a near name, and all of them.
    """
    for key in arguments:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(f"{owner} has no {noun} {key!r}{hint}; it has: {', '.join(known) or 'none'}")


class Maker(NamedTuple):
    """What a name or a reference stands for.

    Attributes:
        call: gives an estimator.
        fields: what it takes by keyword, with the defaults, `MISSING` where there is none.
        noun: what these are called in messages: "field" or "argument".
        takes_any: it takes other keywords too.
    """

    call: Callable[..., Estimator]
    fields: dict[str, Any]
    noun: str = "field"
    takes_any: bool = False


def register(name: str) -> Callable[[EstimatorClass], EstimatorClass]:
    """Class decorator that enters a frozen dataclass into the registry under `name`.

    Raises:
        InputError: if the name is not an identifier, is taken by another class, or the class is not a frozen
            dataclass deriving from `Estimator` with `traits`.
    """

    def enter(cls: EstimatorClass) -> EstimatorClass:
        if not name.isidentifier():
            raise InputError(f"register: name={name!r} must be a Python identifier")
        _check_class(cls, f"register({name!r}): {getattr(cls, '__name__', repr(cls))}")
        if cls.__module__ != _modules().get(name):
            _load_room(name)
        taken = _REGISTRY.get(name)
        if taken is not None and taken.__qualname__ != cls.__qualname__:
            raise InputError(f"register({name!r}): the name is taken by {taken.__module__}.{taken.__qualname__}")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return enter


def _check_class(cls: object, told: str) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Estimator)):
        raise InputError(f"{told} must derive from wtacrs.estimators.Estimator")
    parameters = vars(cls).get("__dataclass_params__")  # a parent's would not do
    if parameters is None or not parameters.frozen or parameters.repr:
        raise InputError(f"{told} must be a dataclass(frozen=True, repr=False)")
    if not hasattr(cls, "traits"):
        raise InputError(f"{told} must define traits")


@cache
def _modules() -> dict[str, str]:
    """Modules of the rooms by their last name; those of estimators are named like these."""
    rooms = importlib.import_module(_PACKAGE).__path__
    found = (module.name for module in pkgutil.walk_packages(rooms, f"{_PACKAGE}."))
    return {name.rpartition(".")[2]: name for name in found if not name.startswith(_NO_ESTIMATORS)}


def _load_room(name: str) -> None:
    """Import the module that registers this name, if it is one of the rooms' and not imported yet."""
    if name not in _REGISTRY and name in _modules():
        importlib.import_module(_modules()[name])


def _load(name: str) -> str | None:
    """Import what registers this name; returns why an entry point cannot be used."""
    _load_room(name)
    if name in _REGISTRY or name not in entry_point_names():
        return None
    owner = f"estimator {name!r} of the distribution {distribution_of(name)}"
    try:
        cls = load_entry_point(name)
        _check_class(cls, f"{owner}: {cls!r}")
        own = vars(cls).get("name", name)
        if own != name:
            raise InputError(f"{owner} is registered as {own!r}")
        if name not in _REGISTRY:
            register(name)(cls)  # type: ignore[type-var]
    except (EntryPointError, InputError) as error:
        return str(error)
    return None


def available() -> tuple[str, ...]:
    """Registered names in alphabetical order, those of this package and of installed ones included.

    Names of entry points that cannot be loaded are left out; `unusable` tells them.
    """
    for name in (*_modules(), *entry_point_names()):
        _load(name)
    return tuple(sorted(_REGISTRY))


def unusable() -> dict[str, str]:
    """Names of entry points that cannot be used, each with the reason, which names its distribution."""
    ours = "has the name of one of this package"
    found = {
        name: f"estimator {name!r} of the distribution {distribution_of(name)} {ours}"
        if name in _modules()
        else _load(name)
        for name in entry_point_names()
    }
    return {name: reason for name, reason in found.items() if reason is not None}


def find(name: str) -> type[Estimator] | None:
    """The class registered under `name`, None if there is none."""
    _load(name)
    return _REGISTRY.get(name)


def lookup(name: str) -> type[Estimator]:
    """The class registered under `name`, or that a reference names.

    Raises:
        InputError: if there is none, with near names, or it cannot be imported.
    """
    if ":" in name:
        found = _referred(name)[0]
        if not isinstance(found, type):
            raise InputError(f"{name} is no class but of type {type(found).__name__}")
        return found
    broken = _load(name)
    if name not in _REGISTRY and broken is not None:
        raise InputError(broken)
    if name not in _REGISTRY:
        near = difflib.get_close_matches(name, available(), n=3, cutoff=0.5)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise InputError(f"unknown estimator {name!r}{hint}; available: {', '.join(available())}")
    return _REGISTRY[name]


def make(spec_text: str | Estimator, **overrides: Any) -> Estimator:
    """Build an estimator from its spec string.

    Args:
        spec_text: for example `"crs(budget=0.3)"` or `"mine.py:Mine(budget=0.3)"`; an estimator is returned as it is,
            with the overrides. `wtacrs.estimators.core.specs` gives the grammar.
        overrides: fields set on top of those in the text.

    Raises:
        InputError: on anything outside the grammar, an unknown name or field, a refused value, or a reference that
            cannot be imported or gives no estimator.

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


def build(parsed: Spec, text: str, **overrides: Any) -> Estimator:
    """The estimator of a parsed spec; `text` is what the messages of errors echo.

    Raises:
        InputError: as `make`.
    """
    made_by = maker(parsed.name)
    return made_by.call(**checked_arguments(parsed, text, made_by, **overrides))


def checked_arguments(parsed: Spec, text: str, made_by: Maker, **overrides: Any) -> dict[str, Any]:
    """The values of a spec, nested estimators built, if they are what its head takes.

    Raises:
        InputError: on an unknown or missing one, and as `make` for those inside.
    """
    inside = {
        key: build(value, text) if isinstance(value, Spec) else value for key, value in parsed.fields.items()
    }
    arguments, name, known = {**inside, **overrides}, parsed.name, made_by.fields
    if not made_by.takes_any:
        check_known(arguments, known, f"spec {text!r}: {name}", made_by.noun)
    missing = [key for key, value in known.items() if value is dataclasses.MISSING and key not in arguments]
    if missing:
        hint = "" if made_by.noun == "field" else f"; {_NEEDED}"
        raise InputError(f"spec {text!r}: {name} needs {', '.join(missing)}, as in {name}({missing[0]}=…){hint}")
    return arguments


# defaults of references that were made, so that text about them need not import them
_SEEN: dict[str, dict[str, Any]] = {}


def defaults(name: str) -> dict[str, Any]:
    """Fields behind a name and their defaults, `MISSING` without one; nothing for an unknown name.

    A reference is not imported for that: it is known once `maker` has found it.
    """
    if ":" in name:
        return _SEEN.get(name, {})
    cls = find(name)
    return {} if cls is None else _class_fields(cls)


def maker(name: str) -> Maker:
    """What makes the estimators that a name or a reference stands for.

    Raises:
        InputError: if it is unknown, cannot be imported, or makes no estimators.
    """
    if ":" not in name:
        cls = lookup(name)
        return Maker(cls if _ours(cls) else partial(_called, name, cls), _class_fields(cls))
    found, source, module = _referred(name)
    if isinstance(found, type):
        made = Maker(partial(_called, name, found), _class_fields(found))
    elif isinstance(found, Estimator):
        name_classes(found, name, source, module)
        values = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}  # type: ignore[arg-type]
        made = Maker(partial(_called, name, partial(dataclasses.replace, found)), values)  # type: ignore[type-var]
    elif callable(found):
        known, takes_any = keywords_of(name, found)
        made = Maker(partial(_returned, name, found, source, module), known, "argument", takes_any)
    else:
        raise InputError(f"{name} is of type {type(found).__name__}: {_NEEDED}")
    # the size of an estimator already made is its own, wherever in it that lies
    _SEEN[name] = {} if isinstance(found, Estimator) else made.fields
    return made


def _class_fields(cls: type[Estimator]) -> dict[str, Any]:
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    return {f.name: f.default if f.default_factory is dataclasses.MISSING else None for f in fields if f.init}


def keywords_of(name: str, call: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """What a function takes by keyword, with the defaults, `MISSING` without one; and whether it takes any other.

    Raises:
        InputError: if its signature cannot be read.
    """
    try:
        parameters = inspect.signature(call).parameters.values()
    except (ValueError, TypeError):
        raise InputError(f"{name} has no signature that can be read: wrap it in a Python function") from None
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    empty = inspect.Parameter.empty
    known = {
        p.name: dataclasses.MISSING if p.default is empty else p.default for p in parameters if p.kind in kinds
    }
    return known, any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _referred(name: str) -> tuple[object, str, ModuleType]:
    """What a reference names, a class with its reference as its name in specs; its file or module, and that imported."""
    source, inner = split_reference(name)
    module = open_module(source)
    found = attribute(module, source, inner)
    if isinstance(found, type):
        if not issubclass(found, Estimator):
            raise InputError(f"{name} is a class that does not derive from Estimator: {_NEEDED}")
        _name_class(found, name, f"{source}:{inner}")
    return found, source, module


def _called(name: str, call: Callable[..., Any], **arguments: Any) -> Any:
    """A call of somebody else's code."""
    try:
        return call(**arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name}(…) raised {type(error).__name__}: {error}") from error


def _returned(name: str, call: Callable[..., Any], source: str, module: ModuleType, **arguments: Any) -> Estimator:
    made = _called(name, call, **arguments)
    if not isinstance(made, Estimator):
        raise InputError(f"{name}(…) returned {type(made).__name__}: {_NEEDED}")
    name_classes(made, f"{name}(…)", source, module)
    return made


def name_classes(estimator: Estimator, told: str, source: str, module: ModuleType) -> None:
    """Give the class of an estimator, and of those inside it, a reference by which another process finds it."""
    cls = type(estimator)
    if not _has_a_name(cls):
        reference = reference_to(cls, source, module) or vars(cls).get("reference")
        if reference is None:
            raise InputError(
                f"{told} is of the class {cls.__qualname__}, which another process could not find: define it at the "
                f"top of {source}"
            )
        _name_class(cls, told, reference)
    for field in dataclasses.fields(estimator):  # type: ignore[arg-type]
        if isinstance(value := getattr(estimator, field.name), Estimator):
            name_classes(value, told, source, module)


def _name_class(cls: type[Estimator], told: str, reference: str) -> None:
    _check_class(cls, f"{told}: {cls.__qualname__}")
    if _has_a_name(cls):
        return
    cls.reference = reference
    if "name" not in vars(cls):
        cls.name = cls.__name__


def _ours(cls: type) -> bool:
    return cls.__module__.startswith(f"{_PACKAGE}.")


def _has_a_name(cls: type[Estimator]) -> bool:
    """Whether every process finds this class by its registered name."""
    name = vars(cls).get("name")
    return name is not None and (_ours(cls) or (name in entry_point_names() and find(name) is cls))


def is_remade(estimator: Estimator) -> bool:
    """Whether `make` finds the class of this estimator by its spec."""
    cls = type(estimator)
    return vars(cls).get("reference") is not None or find(spec_name(cls)) is cls
