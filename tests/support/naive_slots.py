"""Slow transcription of `mixed_precision_rows`: slots one by one, every number rounded by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

from support import naive
from support.naive_sketches import Matrix, uniform

MOST = 8


def error(spread: float, slots: int) -> float:
    return spread / (3 * (4**slots - 1) ** 2)


def spread(row: Sequence[float], group: int | None) -> float:
    size = len(row) if group is None else group
    square = math.fsum(v * v for v in row)
    parts = [row[start : start + size] for start in range(0, len(row), size)]
    return math.fsum(len(part) * max(abs(v) for v in part) ** 2 for part in parts) / square if square else 0.0


def first_slots(sizes: Sequence[float], rows: int) -> float:
    """Σ s²/π with π = min(1, s/τ), by adding certain rows one at a time."""
    order = sorted(sizes, reverse=True)
    for taken in range(rows):
        tau = math.fsum(order[taken:]) / (rows - taken)
        if order[taken] <= tau:
            return math.fsum(s * s for s in order[:taken]) + math.fsum(order[taken:]) * tau
    return math.fsum(s * s for s in order[:rows])


def systematic(sizes: Sequence[float], uniforms: Sequence[float], k: int) -> list[float]:
    """Weights 1/π of the rows whose intervals, in order of their keys, are hit by u, u + 1, …"""
    pi, taken = naive.inclusion(sizes, k)
    weights = [1.0 if i in taken else 0.0 for i in range(len(sizes))]
    tail = sorted((i for i in range(len(sizes)) if i not in taken and pi[i] > 0), key=lambda i: (uniforms[i], i))
    end = 0.0
    for i in tail:
        start, end = end, end + pi[i]
        if math.ceil(end - uniforms[-1]) > math.ceil(start - uniforms[-1]):
            weights[i] = 1 / pi[i]
    return weights


def slots_of(scores: Sequence[float], spreads: Sequence[float], slots: int) -> tuple[int, list[int]]:
    """How many rows are kept, and every row's slots if it is."""
    n = len(scores)
    sizes = [s * math.sqrt(1 + error(m, 1)) for s, m in zip(scores, spreads, strict=True)]
    savings = sorted(
        (
            (s * s * (error(m, t - 1) - error(m, t)), -i, -t)
            for i, (s, m) in enumerate(zip(scores, spreads, strict=True))
            for t in range(2, MOST + 1)
        ),
        reverse=True,
    )
    costs = [
        first_slots(sizes, rows) - math.fsum(saving for saving, _, _ in savings[: slots - rows])
        for rows in range(1, min(slots, n) + 1)
    ]
    rows = 1 + costs.index(min(costs))
    counts = [1] * n
    for saving, i, _ in savings[: slots - rows]:
        counts[-i] += saving > 0
    return rows, counts


def mixed_precision_rows(
    x: Matrix, scores: Sequence[float], uniforms: Sequence[float], seed: int, slots: int, group: int | None
) -> tuple[list[float], Matrix]:
    """Weights, and the rows after weighing and rounding."""
    d = len(x[0])
    spreads = [spread(row, group) for row in x]
    rows, counts = slots_of(scores, spreads, slots)
    sizes = [s * math.sqrt(1 + error(m, 1)) for s, m in zip(scores, spreads, strict=True)]
    everything = rows >= sum(s > 0 for s in sizes)
    weights = [float(s > 0) for s in sizes] if everything else systematic(sizes, uniforms, rows)
    rounded = []
    for i, row in enumerate(x):
        size = d if group is None else group
        top = 4 ** counts[i] - 1
        values = []
        for j, value in enumerate(row):
            part = row[j // size * size : (j // size + 1) * size]
            step = 2 * max(abs(v) for v in part) * weights[i] / top
            u = uniform(seed, 0, i * d + j)
            place = value * weights[i] / step + top / 2 if step else top / 2
            code = min(max(math.floor(place + u), 0), top)
            values.append((code + 0.5 - u - top / 2) * step if weights[i] else 0.0)
        rounded.append(values)
    return weights, rounded
