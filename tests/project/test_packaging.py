"""What is installed and what an import costs; the examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.paths import ROOT

STOREYS = ("estimators", "validation", "figures", "integration")
MODULES = sorted(
    f"wtacrs.{storey}.{module.name}" for storey in STOREYS for module in pkgutil.iter_modules([str(ROOT / storey)])
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


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
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


def test_storeys_import_only_downwards() -> None:
    for height, storey in enumerate(STOREYS):
        for path in (ROOT / storey).glob("*.py"):
            for above in STOREYS[height + 1 :]:
                assert not re.search(rf"wtacrs\.{above}\b(?!`)", _code(path)), f"{path} reaches up to {above}"


def _code(path: Path) -> str:
    """Import statements only: prose may name the storeys above."""
    lines = path.read_text().splitlines()
    return "\n".join(line for line in lines if re.match(r"\s*(from|import) ", line))


def test_a_module_keeps_to_one_room() -> None:
    too_long = {
        str(path.relative_to(ROOT)): count
        for storey in STOREYS
        for path in (ROOT / storey).glob("*.py")
        if (count := len(path.read_text().splitlines())) > 420
    }
    assert not too_long
