"""Shapes and dtypes in signatures are checked here, and only here: the library itself runs unchecked."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import jaxtyping

jaxtyping.install_import_hook(["wtacrs.estimators", "wtacrs.validation"], "beartype.beartype")

import pytest
import torch
from hypothesis import settings

# examples are a function of the test alone, so that the suite gives one answer; deadlines would test the machine
settings.register_profile("suite", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("suite")

# the matrices of the tests are too small for a second thread, which would only wait for the first
torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of random numbers."""
    return torch.Generator().manual_seed(2305_15265)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Signatures are not checked, as in the library a user runs: for tests of the library's own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
