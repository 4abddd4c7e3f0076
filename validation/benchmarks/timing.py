"""The clock of all benchmarks: what is compared takes turns, and the median of several rounds counts.

Other work on the machine so hits all alike. Ratios of one run are comparable; seconds of different machines are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch


def interleaved_medians(
    runs: Sequence[Callable[[], object]], *, rounds: int, device: str | torch.device
) -> list[float]:
    """Seconds of each run: the median of several rounds, in which they take turns, after one that warms up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(1 + rounds):
        for kept, run in zip(seconds, runs, strict=True):
            kept.append(seconds_of(run, device))
    return [median(kept[1:]) for kept in seconds]


def seconds_of(run: Callable[[], object], device: str | torch.device) -> float:
    """Wall-clock seconds of one run, until the device has done it; the result is freed afterwards."""
    wait_for(device)
    started = time.perf_counter()
    found = run()
    wait_for(device)
    seconds = time.perf_counter() - started
    del found
    return seconds


def wait_for(device: str | torch.device) -> None:
    """Until a device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
