"""A limit on the time that foreign code may take, where the system can interrupt it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TimeLimitReached(Exception):
    """The code did not end in time."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt what runs inside after some seconds.

    Works in the main thread of systems with interval timers (Linux, macOS), and between Python instructions only: one
    long call of compiled code ends first. Elsewhere there is no limit. A timer that runs already goes on afterwards.

    Args:
        seconds: > 0.

    Raises:
        TimeLimitReached: if they are over.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    handler = signal.signal(signal.SIGALRM, _stop)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, handler)
        if left > 0.0:
            signal.setitimer(signal.ITIMER_REAL, left, interval)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise TimeLimitReached
