"""Fixtures of the tests of the figures."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _as_a_user_runs_it(unchecked_module: None) -> None:
    """Signatures are checked where they are written, in the tests of estimators and validation."""
