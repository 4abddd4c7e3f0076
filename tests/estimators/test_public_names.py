"""`wtacrs.estimators` gives its names on first use, and the registry imports an estimator when its name is asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest
from support.paths import ROOT

import wtacrs.estimators
from wtacrs.estimators import available, lookup

LAZY = """
import sys
import wtacrs.estimators as zoo
assert "torch" not in sys.modules
make = zoo.make
rooms = ("rows", "sketches", "projections", "rounding", "composites")
def loaded():
    return {m for m in sys.modules if m.startswith(tuple(f"wtacrs.estimators.{r}." for r in rooms))}
assert not loaded(), loaded()
assert repr(make("exact")) == "exact"
assert loaded() == {"wtacrs.estimators.rows.exact"}, loaded()
assert zoo.WTACRS is zoo.lookup("wta_crs")
assert "wtacrs.estimators.sketches.srht" not in loaded()
try:
    make("srth(budget=0.3)")
except zoo.InputError as error:
    assert "did you mean srht" in str(error)
"""

TAKEN = """
from dataclasses import dataclass
from wtacrs.estimators import Exact, InputError, lookup, register
for name in ("crs", "subspace"):
    try:
        @register(name)
        @dataclass(frozen=True, repr=False)
        class Other(Exact):
            traits = Exact.traits
    except InputError as error:
        print(error)
assert lookup("subspace") is Other and lookup("crs") is not Other
"""


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_is_imported_before_it_is_used() -> None:
    run(LAZY)


def test_a_name_is_taken_before_its_estimator_is_imported() -> None:
    assert run(TAKEN) == "register('crs'): the name is taken by wtacrs.estimators.rows.crs.CRS\n"


def test_every_public_name_is_there() -> None:
    assert all(hasattr(wtacrs.estimators, name) for name in wtacrs.estimators.__all__)
    assert set(wtacrs.estimators.__all__) <= set(dir(wtacrs.estimators))
    assert wtacrs.estimators.__version__ == version("wtacrs")
    with pytest.raises(AttributeError, match="no attribute 'CSR'"):
        wtacrs.estimators.CSR  # type: ignore[attr-defined]  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "estimators" / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        alias.asname: node.module.removeprefix("wtacrs.estimators.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("wtacrs.estimators.")
        for alias in node.names
    }
    assert seen == wtacrs.estimators._HOMES


@pytest.mark.parametrize("name", available())
def test_a_module_is_named_like_its_estimator_and_gives_it_to_the_public(name: str) -> None:
    cls = lookup(name)
    assert cls.__module__.rpartition(".")[2] == name
    assert getattr(import_module("wtacrs.estimators"), cls.__name__) is cls
