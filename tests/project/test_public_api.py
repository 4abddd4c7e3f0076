"""What people import from the package roots: there, documented, and the same until somebody decides otherwise."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGES = ("wtacrs.estimators", "wtacrs.validation", "wtacrs.figures", "wtacrs.integration")
COMMITTED = Path(__file__).with_name("public_api.txt")
HEAVY = ("torch", "transformers", "datasets", "pandas", "matplotlib", "scipy")


def names_of(package: str) -> list[str]:
    """Of `wtacrs.figures`, none until it exports some."""
    return list(getattr(import_module(package), "__all__", []))


def surface() -> list[str]:
    return [f"{package}.{name}" for package in PACKAGES for name in names_of(package)]


def public() -> list[tuple[str, str]]:
    return [(package, name) for package in PACKAGES for name in names_of(package) if name != "__version__"]


def test_names_come_and_go_deliberately() -> None:
    committed = COMMITTED.read_text(encoding="utf-8").split()
    assert sorted(surface()) == committed, f"change {COMMITTED.name} too, in order"


@pytest.mark.parametrize("package", PACKAGES)
def test_names_are_sorted_and_listed(package: str) -> None:
    names = names_of(package)
    assert names == sorted(set(names))
    assert set(names) <= set(dir(import_module(package)))


@pytest.mark.parametrize(("package", "name"), public())
def test_a_name_is_there_and_documented(package: str, name: str) -> None:
    found = getattr(import_module(package), name)
    assert found.__name__ == name
    assert found.__doc__
    assert len(found.__doc__.split()) > 2
    assert not found.__doc__.startswith(f"{name}(")  # what dataclasses write where nobody did
    assert inspect.getmodule(found).__name__.startswith(package)
    assert find_spec(f"{package}.{name}") is None, "a module of this name would hide it"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_nothing_heavy(package: str) -> None:
    script = f"import sys, {package}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("package", ["wtacrs.validation", "wtacrs.integration", "wtacrs.estimators"])
def test_other_names_are_refused(package: str) -> None:
    with pytest.raises(AttributeError, match="no attribute 'approximately_'"):
        import_module(package).approximately_  # noqa: B018
