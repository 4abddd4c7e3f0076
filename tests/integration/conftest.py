"""Fixtures that several tests of the integration share."""

from __future__ import annotations

import pytest
from support.runs import TASK
from transformers import PreTrainedTokenizerBase

from wtacrs.integration.models.loading import task_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """Tokenizer of the small task."""
    return task_tokenizer(TASK, 300)


@pytest.fixture(scope="module", autouse=True)
def _as_a_user_runs_it(unchecked_module: None) -> None:
    """Signatures are checked where they are written, in the tests of estimators and validation."""
