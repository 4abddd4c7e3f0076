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
