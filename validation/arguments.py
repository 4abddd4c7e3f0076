"""Arguments of a type that nothing later would name: refused where they enter, in one line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from numbers import Integral, Real
from typing import ParamSpec, TypeVar

from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.registry import check_known

P = ParamSpec("P")
T = TypeVar("T")

_LONGEST = 120


def checked_integer(value: object, argument: str, *, least: int, or_none: bool = False) -> int:
    """The number itself; an integer of numpy becomes one of Python.

    Args:
        value: given by the user.
        argument: what it was given as, for the message.
        least: the least that is accepted.
        or_none: whether the caller takes None too, which the message then says.

    Raises:
        InputError: on anything but an integer from `least`.

    >>> checked_integer(4, "steps", least=1)
    4
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        accepted = f"an integer from {least}" + (", or None" if or_none else "")
        raise InputError(f"{argument}={shown(value)} must be {accepted}")
    return int(value)


def check_flag(value: object, argument: str) -> None:
    """Refuse what is neither True nor False: a text such as "no" would count as True.

    Raises:
        InputError: naming the argument and its value.
    """
    if not isinstance(value, bool):
        raise InputError(f"{argument}={shown(value)} must be True or False")


def check_callable(value: object, argument: str, *, takes: str) -> None:
    """Refuse what can be neither called nor left out.

    Args:
        value: given by the user; None is accepted.
        argument: what it was given as, for the message.
        takes: what it is called with, for the message.

    Raises:
        InputError: naming the argument and its value.
    """
    if value is not None and not callable(value):
        raise InputError(f"{argument}={shown(value)} must be a function of {takes}, or None")


def check_kind(value: object, argument: str, kind: type) -> None:
    """Refuse what is no object of a class.

    Raises:
        InputError: naming the argument, its value and the class.
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        raise InputError(f"{argument}={shown(value)} must be {article} {kind.__name__}")


def check_batch(value: object, argument: str) -> None:
    """Refuse what is no mapping of the names of a forward pass's arguments.

    Raises:
        InputError: naming the argument and its value.
    """
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{argument}={shown(value)} must be a mapping of the forward pass's arguments by name")


def shown(value: object) -> str:
    """A value in one line of a message, cut where it is long.

    >>> shown("exact"), len(shown([0] * 1000))
    ("'exact'", 120)
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def is_number(value: object) -> bool:
    """Whether a value is a real number, of Python or of numpy; a bool is none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def without_prefixes(message: str, given: str, value: object) -> str:
    """A message that is to follow `given: `, without the same argument, or the spec that it holds, said once more.

    >>> without_prefixes("lean='attn': 'attn' is none", "lean='attn'", "attn")
    "'attn' is none"
    >>> without_prefixes("spec 'crs(k=1)': crs has no field 'k'", "estimator='crs(k=1)'", "crs(k=1)")
    "crs has no field 'k'"
    """
    return message.removeprefix(f"{given}: ").removeprefix(f"spec {value!r}: ")


def known_keywords(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function refuse a keyword that it does not have in the words of an `InputError`, with a near one."""
    known = [name for name in inspect.signature(function).parameters if name != "self"]

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        method = function.__name__ == "__init__"
        check_known(kwargs, known, type(args[0]).__name__ if method else function.__qualname__)
        return function(*args, **kwargs)

    return checked
