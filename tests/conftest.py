"""Shapes and dtypes in signatures are checked by the tests of estimators and validation: the library runs unchecked."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

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


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """Take what is imported out of garbage collection, which tests and Trainer run often among a million objects."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `cuda` where there is no such device."""
    if item.get_closest_marker("cuda") is not None and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of random numbers."""
    return torch.Generator().manual_seed(2305_15265)


@contextmanager
def _unchecked() -> Iterator[None]:
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Signatures are not checked, as in the library a user runs: for its own errors, and for many thousand draws."""
    with _unchecked():
        yield


@pytest.fixture(scope="module")
def unchecked_module() -> Iterator[None]:
    """The same for all tests of a module and for its fixtures."""
    with _unchecked():
        yield
