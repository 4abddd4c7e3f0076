"""What is installed and what an import costs; the examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys
import tomllib

import pytest
from support.paths import ROOT, TESTS

STOREYS = ("estimators", "validation", "figures", "integration")
WITH_EXAMPLES = sorted(
    ".".join(("wtacrs", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for storey in STOREYS
    for path in (ROOT / storey).rglob("*.py")
    if re.search(r"^\s*>>> ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
)


def test_every_folder_with_code_is_packaged() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for storey in STOREYS
        for path in (ROOT / storey).rglob("*.py")
    }
    assert {f"wtacrs.{folder}" for folder in folders} == set(settings["packages"])
    assert all((ROOT / storey / "py.typed").exists() for storey in STOREYS)


@pytest.mark.usefixtures("unchecked")  # an example is what a user runs
@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert result.attempted
    assert result.failed == 0


def test_every_estimator_shows_an_example() -> None:
    from wtacrs.estimators import available, lookup

    for name in available():
        assert ">>>" in (lookup(name).__doc__ or ""), name


LEAN = """
import sys
import torch
before = set(sys.modules)
import wtacrs.estimators
unwanted = {"transformers", "matplotlib", "scipy", "pydantic", "rich", "typer", "accelerate", "datasets"}
heavy = unwanted & (set(sys.modules) - before)
assert not heavy, heavy
assert not torch.cuda.is_initialized()
"""

LAZY = """
import sys
import wtacrs.integration
assert not {"transformers", "matplotlib", "torch", "torch.distributed.fsdp"} & set(sys.modules)
from wtacrs.integration import ApproxLinear, FinetuneConfig, ForwardContext, approximate_, capture, restore_
assert capture.__module__ == "wtacrs.integration.measure.capture" and callable(capture)
import wtacrs.integration.measure.capture
from wtacrs.integration import capture as again
assert again is capture
heavy = {"transformers", "matplotlib", "datasets", "sklearn"} & set(sys.modules)
assert not heavy, heavy
from wtacrs.integration import WtacrsCallback, finetune
assert {"WtacrsCallback", "restore_"} <= set(dir(wtacrs.integration))
try:
    from wtacrs.integration import nothing
except ImportError:
    pass
else:
    raise AssertionError
"""

QUIET = """
import sys
import wtacrs.integration.cli
heavy = {"transformers", "matplotlib", "datasets", "sklearn", "torch.distributed.fsdp"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize("script", [LEAN, LAZY, QUIET])
def test_imports_stay_lean(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_tests_mirror_the_tree() -> None:
    """A folder of tests has the name of the room that it tests."""
    tested = {path.parent.relative_to(TESTS) for storey in STOREYS for path in (TESTS / storey).rglob("test_*.py")}
    assert tested
    assert all((ROOT / folder).is_dir() for folder in tested)


def test_no_test_imports_another() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py")}
    found = [
        path.name for path, text in sources.items() if re.search(r"^\s*(from|import) test_", text, re.MULTILINE)
    ]
    assert not found
