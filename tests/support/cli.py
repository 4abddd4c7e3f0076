"""What tests of the command line share."""

from __future__ import annotations

import pytest

from wtacrs.integration.cli import main
from wtacrs.validation.layers.captures import LayerCapture, StoredCapture


def in_memory(stored: StoredCapture) -> LayerCapture:
    return LayerCapture(stored.x, stored.dy, stored.mask)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run what must be refused; its one line, before which only warnings and what was left out may stand."""
    code = main([str(argument) for argument in arguments])
    streams = capsys.readouterr()
    assert code == 2, streams
    *before, line = streams.err.splitlines()
    assert line.startswith("error: ")
    assert all(told.startswith(("skipped ", "warning ")) for told in before), before
    assert "Traceback" not in streams.out + streams.err
    return line + "\n"


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    """All that was printed, on either stream."""
    streams = capsys.readouterr()
    return streams.out + streams.err
