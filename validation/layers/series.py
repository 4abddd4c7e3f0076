"""What a spec has in common at all sizes, so that its rows, lines and medians belong together."""

from __future__ import annotations

import ast

from wtacrs.estimators import InputError, make


def series(spec_text: str) -> str:
    """What a spec has in common at all budgets: the spec, fields spelled out, without any `budget=…`.

    A registered estimator gets its defaults spelled out; text that is not a spec (a function of an outsider) is
    its own series.

    >>> series("wta_crs(budget=0.3)"), series("crs(budget=64)"), series("exact"), series("mine.py:f")
    ('wta_crs(winners="paper")', 'crs', 'exact', 'mine.py:f')
    """
    try:
        text = repr(make(spec_text))
    except InputError:
        text = spec_text.strip()
    call = _call(text)
    return text if call is None else _without_budget(call)


def budget_in_rows(spec_text: str) -> int | None:
    """The number of rows asked for by a spec such as `crs(budget=64)`, or by the first spec inside it that has a budget.

    None where the budget is no int.
    """
    call = _call(spec_text)
    if call is None:
        return None
    for node in ast.walk(call):  # the outermost first
        if isinstance(node, ast.keyword) and node.arg == "budget" and isinstance(node.value, ast.Constant):
            return node.value.value if type(node.value.value) is int else None
    return None


def _call(text: str) -> ast.Call | ast.Name | None:
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return node if isinstance(node, (ast.Call, ast.Name)) else None


def _without_budget(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        fields = [f"{k.arg}={_without_budget(k.value)}" for k in node.keywords if k.arg not in ("budget", None)]
        fields = [_without_budget(a) for a in node.args] + fields
        return ast.unparse(node.func) + (f"({', '.join(fields)})" if fields else "")
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return f'"{node.value}"'
    return ast.unparse(node)
