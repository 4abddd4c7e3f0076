"""Pieces of rows of the output layer, and what notes when logits become real."""

from __future__ import annotations

import pytest

from tests.support.lean_heads import V
from wtacrs.integration.layers.lean import cross_entropy as lean
from wtacrs.integration.layers.lean.deferred_logits import Source
from wtacrs.integration.layers.lean.head import LeanHead


@pytest.fixture(params=[2**24, 8 * V * 2], ids=["all rows", "2 rows"])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of a piece, of doubles."""
    monkeypatch.setattr(lean, "PIECE", request.param)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes every loss by pieces, and every time that logits become real."""
    seen: list[str] = []
    loss, compute = LeanHead.loss, Source.compute
    monkeypatch.setattr(LeanHead, "loss", lambda *a, **k: (seen.append("pieces"), loss(*a, **k))[1])
    monkeypatch.setattr(Source, "compute", lambda s: (seen.append("real"), compute(s))[1])
    return seen
