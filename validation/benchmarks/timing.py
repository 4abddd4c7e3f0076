"""How long an estimate takes beside the exact product: `python -m wtacrs.validation.benchmarks.timing`.

One thread by default, fp32; candidates are interleaved and the median of several rounds is taken, so that other work on
the machine hits all of them alike. Ratios of one run are comparable; seconds of different machines are not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

from wtacrs.estimators import Estimator, make

SHAPES = ((1500, 128, 128), (4096, 512, 512), (4096, 1024, 1024))
SPECS = (
    "crs(budget=0.1)",
    "crs(budget=0.3)",
    "wta_crs(budget=0.1)",
    "wta_crs(budget=0.3)",
    "systematic(budget=0.3)",
)


def time_ratios(
    shape: tuple[int, int, int], estimators: Sequence[Estimator], *, rounds: int, device: str = "cpu"
) -> tuple[float, list[float]]:
    """Seconds of `dy.T @ x`, and for every estimator `compress` and `contract` together over that.

    Args:
        shape: (n, d, m).
        estimators: what to time.
        rounds: how often each is run; the median counts.
        device: where.
    """
    n, d, m = shape
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(n, d, generator=generator, device=device)
    dy = torch.randn(n, m, generator=generator, device=device)
    candidates: list[Callable[[], object]] = [lambda: dy.T @ x]
    candidates += [lambda e=e: e.contract(e.compress(x, generator=generator), dy) for e in estimators]  # type: ignore[misc]
    exact, *others = interleaved_medians(candidates, rounds=rounds, device=device)
    return exact, [other / exact for other in others]


def interleaved_medians(
    runs: Sequence[Callable[[], object]], *, rounds: int, device: str | torch.device
) -> list[float]:
    """Seconds of each run: the median of several rounds, in which they take turns, after one that warms up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(1 + rounds):
        for kept, run in zip(seconds, runs, strict=True):
            wait_for(device)
            started = time.perf_counter()
            run()
            wait_for(device)
            kept.append(time.perf_counter() - started)
    return [median(kept[1:]) for kept in seconds]


def wait_for(device: str | torch.device) -> None:
    """Until a device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(prog="python -m wtacrs.validation.benchmarks.timing", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(f"fp32, {options.device}, {options.threads} threads, median of {options.rounds}; exact = 1")
    for shape in SHAPES:
        exact, ratios = time_ratios(shape, [make(s) for s in SPECS], rounds=options.rounds, device=options.device)
        told = " · ".join(f"{spec} {ratio:.2f}" for spec, ratio in zip(SPECS, ratios, strict=True))
        print(f"n={shape[0]} d={shape[1]} m={shape[2]}: {told} (exact {1e3 * exact:.2f} ms)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
