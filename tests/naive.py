"""Slow transcriptions of each definition, in plain Python numbers: the twins of the fast versions.

Each takes the row scores and the same uniform numbers as `RowEstimator.plan`, and returns the coefficient that
every row gets, as a list of floats.
"""

from __future__ import annotations

from collections.abc import Sequence


def topk(scores: Sequence[float], k: int) -> list[float]:
    """Keep the k rows of largest positive score, ties to the earlier row."""
    ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    coefficients = [0.0] * len(scores)
    for i in ranked[:k]:
        if scores[i] > 0:
            coefficients[i] = 1.0
    return coefficients


def crs(scores: Sequence[float], uniforms: Sequence[float]) -> list[float]:
    """k draws from p ∝ scores; a drawn row weighs 1/(k p)."""
    k, total = len(uniforms), sum(scores)
    coefficients = [0.0] * len(scores)
    for u in uniforms:
        i = _invert(scores, range(len(scores)), u * total)
        coefficients[i] += total / (k * scores[i])
    return coefficients


def wta_crs(scores: Sequence[float], uniforms: Sequence[float], winners: str | int) -> list[float]:
    """Winners once; the other draws from the tail, weighing P_T/((k − |C|) p)."""
    n, k = len(scores), len(uniforms)
    coefficients = [0.0] * n
    if k == n:
        return [1.0 if s > 0 else 0.0 for s in scores]
    ranked = sorted(range(n), key=lambda i: (-scores[i], i))
    c = winners if isinstance(winners, int) else best_winner_count([scores[i] for i in ranked], k, winners)
    for i in ranked[:c]:
        coefficients[i] = 1.0 if scores[i] > 0 else 0.0
    tail = ranked[c:]
    mass = sum(scores[i] for i in reversed(tail))
    if mass == 0:
        return coefficients
    for u in uniforms[c:]:
        # the tail is walked from the smallest score up, as the fast version sums it
        i = _invert(scores, list(reversed(tail)), u * mass)
        coefficients[i] += mass / ((k - c) * scores[i])
    return coefficients


def best_winner_count(ranked_scores: Sequence[float], k: int, rule: str) -> int:
    """The first |C| in 0 … k that minimises the rule; |C| = k is allowed if it leaves nothing."""
    best, best_loss = 0, float("inf")
    for c in range(k + 1):
        left = sum(reversed(ranked_scores[c:]))
        if c == k:
            loss = 0.0 if left == 0 else float("inf")
        else:
            loss = (left if rule == "paper" else left * left) / (k - c)
        if loss < best_loss:
            best, best_loss = c, loss
    return best


def _invert(scores: Sequence[float], rows: Sequence[int], target: float) -> int:
    """The first row at which the running sum of scores exceeds the target."""
    running, last = 0.0, None
    for i in rows:
        if scores[i] > 0:
            running += scores[i]
            last = i
            if running > target:
                return i
    assert last is not None
    return last
