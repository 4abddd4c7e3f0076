"""All registered estimators as a table for the terminal."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from rich.table import Table

from wtacrs.estimators import Estimator, available, lookup
from wtacrs.estimators.core.registry import unusable


def zoo_table() -> Table:
    """All registered estimators and what they promise."""
    table = Table(title="Estimators of dYᵀ X", title_justify="left")
    columns = (
        "name",
        "parameters",
        "unbiased",
        "as published",
        "random",
        "uses scores",
        "exact at k = n",
        "what it is",
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    for name in available():
        cls = lookup(name)
        traits = cls.traits
        fields = ", ".join(str(parameter) for parameter in _parameters(cls))
        flags = (not traits.deterministic, traits.uses_scores, traits.exact_at_full_budget)
        unbiased = _yes(traits.unbiased)
        table.add_row(name, fields, unbiased, _as_published(cls), *map(_yes, flags), in_a_line(cls))
    return table


def unusable_lines() -> list[str]:
    """A line for every estimator that an installed package declares and that cannot be used."""
    return [f"not usable: {reason}" for reason in unusable().values()]


def explained(cls: type[Estimator]) -> str:
    """The docstring of an estimator, and the form in which its method was published."""
    told = inspect.getdoc(cls) or cls.__name__
    published = cls.published
    if published is None:
        return told
    note = f" ({published.note})" if published.note else ""
    here = "unbiased" if cls.traits.unbiased else "biased"
    return f"{told}\n\nAs published: {published.verdict}, {published.source}. Here: {here}{note}."


def described(cls: type[Estimator]) -> dict[str, Any]:
    """What the table says of an estimator, for machines."""
    traits = cls.traits
    return {
        "name": cls.name,
        "parameters": [str(parameter) for parameter in _parameters(cls)],
        "unbiased": traits.unbiased,
        "as_published": _as_published(cls) or None,
        "random": not traits.deterministic,
        "uses_scores": traits.uses_scores,
        "exact_at_full_budget": traits.exact_at_full_budget,
        "what_it_is": in_a_line(cls),
    }


def in_a_line(cls: type) -> str:
    """What an estimator is, from the first line of its module, `name`: …; else from the first line of its own text."""
    module = inspect.getdoc(sys.modules[cls.__module__]) or ""
    own = vars(cls).get("__doc__") or cls.__name__  # a parent's says something else
    return (module.split("\n")[0].partition(": ")[2] or own.strip().split("\n")[0]).rstrip(".")


def _as_published(cls: type[Estimator]) -> str:
    published = cls.published
    return "" if published is None else f"{published.verdict}: {published.source}"


def _parameters(cls: type) -> list[inspect.Parameter]:
    return [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(cls).parameters.values()
    ]


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
