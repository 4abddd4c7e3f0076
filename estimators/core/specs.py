"""The grammar of a spec, parsed and never executed.

A spec is `head` or `head(key=value, …)`. The head is a registered name, or a reference to somebody's own code:
`PATH.py:NAME` or `package.module:NAME` (`wtacrs.estimators.core.references`). A value is a number, a quoted string, True,
False, None or another spec.

    crs(budget=0.3)
    code/mine.py:Mine(budget=0.3)
    control_variate(rows=code/mine.py:Mine(budget=0.3))
    control_variate(rows="my code/mine.py:Mine"(budget=0.3))

A path with spaces, quotes, brackets, commas or `=` is written in quotes, and then always with parentheses, `"…"()` if
there is nothing in them: a quoted value without them is a string. At the beginning of the whole spec the quotes may be
left out, unless the path begins like a spec, with a word and a bracket.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from wtacrs.estimators.core.base import literal
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.references import BARE, FORM, NAME, is_reference, written

_STRING = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
_TOKEN = re.compile(rf"(?P<string>{_STRING})|(?P<reference>{BARE})(?P<call>\s*\()?", re.DOTALL)
# a path with anything in it, at the beginning of a spec
_WHOLE = re.compile(rf"(?P<reference>[^\"'].*?\.py:{NAME})\s*(?P<call>\(.*\))?", re.DOTALL)


class Spec(NamedTuple):
    """A parsed spec: what is written, whether or not there is such an estimator.

    Attributes:
        name: as registered, or a reference.
        fields: the values that are written, in their order; a nested spec is a `Spec`.
    """

    name: str
    fields: dict[str, Any]

    def __str__(self) -> str:
        """The text: plain values first, nested specs behind them."""
        values = sorted(self.fields.items(), key=lambda item: isinstance(item[1], Spec))
        inside = ", ".join(
            f"{key}={value if isinstance(value, Spec) else literal(value)}" for key, value in values
        )
        head = written(self.name)
        # a quoted reference alone would be a string
        return f"{head}({inside})" if inside or head != self.name else head


def references_in(parsed: Spec) -> Iterator[str]:
    """The references in a spec, its own and nested ones.

    >>> list(references_in(parse("control_variate(rows=code/mine.py:Mine(budget=0.3))")))
    ['code/mine.py:Mine']
    """
    if ":" in parsed.name:
        yield parsed.name
    for value in parsed.fields.values():
        if isinstance(value, Spec):
            yield from references_in(value)


def parse(text: str) -> Spec:
    """What a spec says; whether its names and values exist is not looked at.

    Raises:
        InputError: on anything outside the grammar.

    >>> parse('control_variate(rows=crs(budget=0.3), base="mean")').fields["rows"].fields
    {'budget': 0.3}
    >>> parse("control_variate(rows=code/mine.py:Mine(budget=0.3))").fields["rows"].name
    'code/mine.py:Mine'
    """
    try:
        node = ast.parse(_quoted(text.strip()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(_misshaped(text)) from None
    return _parsed(node, text)


def _quoted(text: str) -> str:
    """The text with every reference in quotes and called, so that it is Python's syntax."""
    whole = _WHOLE.fullmatch(text) if is_reference(text) else None
    if whole is not None:
        return json.dumps(whole["reference"], ensure_ascii=False) + _quoted_inside(whole["call"] or "()")
    return _quoted_inside(text)


def _quoted_inside(text: str) -> str:
    return _TOKEN.sub(_quoted_token, text)


def _quoted_token(token: re.Match[str]) -> str:
    return token["string"] or json.dumps(token["reference"], ensure_ascii=False) + (token["call"] or "()")


def _misshaped(text: str) -> str:
    if is_reference(text) and "(" not in text:
        return f"{text!r} is not of the form {FORM}"
    quotes = '; a path with spaces or brackets stands in quotes, as in "my code/mine.py:NAME"(…)'
    return f"spec {text!r} is not of the form name(key=value, …){quotes if '.py:' in text else ''}"


def _parsed(node: ast.expr, text: str) -> Spec:
    if isinstance(node, ast.Name):
        return Spec(node.id, {})
    name = _head(node.func) if isinstance(node, ast.Call) else None
    if not isinstance(node, ast.Call) or name is None:
        raise InputError(_misshaped(text))
    if node.args:
        raise InputError(f"spec {text!r}: write values with their names, as in crs(budget=0.3)")
    fields: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in fields:
            raise InputError(f"spec {text!r}: every value needs one name of its own")
        fields[keyword.arg] = _value(keyword.value, text)
    return Spec(name, fields)


def _head(node: ast.expr) -> str | None:
    """What is called: a name, or a reference in quotes."""
    if isinstance(node, ast.Name):
        return node.id
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(rf".+:{NAME}", node.value, re.DOTALL)
    ):
        return node.value
    return None


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
