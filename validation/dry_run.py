"""Dry runs: inputs are checked as in a real run, which ends where the work would begin; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_DRY: ContextVar[bool] = ContextVar("dry_run", default=False)


class WouldBegin(Exception):
    """Raised in a dry run in place of the work.

    Attributes:
        lines: what would be done, a sentence a line.
    """

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def is_dry_run() -> bool:
    """Whether nothing may be written or computed at length."""
    return _DRY.get()


@contextmanager
def dry_run(on: bool = True) -> Iterator[None]:
    """Make a dry run of what is called inside."""
    token = _DRY.set(on)
    try:
        yield
    finally:
        _DRY.reset(token)


def begin_work(*lines: str) -> None:
    """Mark where all inputs are checked and the work begins.

    Args:
        lines: what is about to be done.

    Raises:
        WouldBegin: in a dry run.
    """
    if is_dry_run():
        raise WouldBegin(lines)
