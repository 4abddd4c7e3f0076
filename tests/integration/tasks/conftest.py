"""Tests of the tasks load them whole."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _docstrings_to_load() -> None:
    """Load all docstrings, which are what is tested here."""
