"""Fixtures that several tests of the integration share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from support.runs import TASK
from transformers import PreTrainedTokenizerBase

from wtacrs.integration.models.loading import task_tokenizer
from wtacrs.integration.tasks import docstrings


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """Tokenizer of the small task."""
    return task_tokenizer(TASK, 300)


@pytest.fixture(scope="module", autouse=True)
def _as_a_user_runs_it(unchecked_module: None) -> None:
    """Signatures are checked where they are written, in the tests of estimators and validation."""


@pytest.fixture(scope="module", autouse=True)
def _docstrings_to_load() -> Iterator[None]:
    """Load a tenth of the docstrings: all of them take ten seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(docstrings, "load_sentences", partial(docstrings.load_sentences, 200, 12))
        yield
