"""What tests of the command line share."""

from __future__ import annotations

import pytest

from wtacrs.integration.cli import main
from wtacrs.validation.layers.captures import LayerCapture, StoredCapture


def in_memory(stored: StoredCapture) -> LayerCapture:
    return LayerCapture(stored.x, stored.dy, stored.mask)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run what must be refused; its one line."""
    code = main([str(argument) for argument in arguments])
    streams = capsys.readouterr()
    assert code == 2, streams
    assert streams.err.startswith("error: ")
    assert streams.err.count("\n") == 1
    assert "Traceback" not in streams.out + streams.err
    return streams.err
