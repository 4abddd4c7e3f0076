"""The public names of `wtacrs.validation`: there when they are asked for, and nothing is imported before."""

from __future__ import annotations

import subprocess
import sys

import pytest

import wtacrs.validation as validation

SCRIPT = """
import sys
import wtacrs.validation
assert not [name for name in sys.modules if name.startswith(("torch", "scipy", "pydantic"))]
from wtacrs.validation import monte_carlo
assert "wtacrs.validation.layers.compare" not in sys.modules
"""


def test_every_name_is_that_of_its_module() -> None:
    for name in validation.__all__:
        assert getattr(validation, name).__name__ == name
        assert getattr(validation, name).__module__.startswith("wtacrs.validation.")
    assert set(validation.__all__) <= set(dir(validation))


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'check_estimators'"):
        validation.check_estimators  # noqa: B018
