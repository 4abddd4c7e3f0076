"""Slow transcriptions of each definition, in plain Python numbers: the twins of the fast versions.

Each takes the row scores and the same uniform numbers as `RowEstimator.plan`, and returns the coefficient that
every row gets, as a list of floats.
"""

from __future__ import annotations

import itertools
import math
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
        if c < k:
            loss = (left if rule == "paper" else left * left) / (k - c)
        else:
            loss = float("inf") if left > 0 else 0.0
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


def uniform(scores: Sequence[float], uniforms: Sequence[float], k: int, replacement: bool) -> list[float]:
    """k of the rows of positive score, weighing (their number)/k."""
    n = len(scores)
    population = [i for i in range(n) if scores[i] > 0]
    coefficients = [0.0] * n
    if replacement:
        for u in uniforms:
            coefficients[population[int(u * len(population))]] += len(population) / k
        return coefficients
    for i in sorted(population, key=lambda i: uniforms[i])[:k]:
        coefficients[i] = max(len(population) / k, 1.0)
    return coefficients


def inclusion(scores: Sequence[float], k: int) -> tuple[list[float], list[int]]:
    """min(1, s/τ) and the take-all set: take the largest row out while its share of what is left exceeds 1."""
    n = len(scores)
    pi, taken = [0.0] * n, []
    left = sorted((i for i in range(n) if scores[i] > 0), key=lambda i: (-scores[i], i))
    while left and k > 0 and scores[left[0]] * k > sum(scores[i] for i in reversed(left)):
        taken.append(left.pop(0))
        pi[taken[-1]] = 1.0
        k -= 1
    total = sum(scores[i] for i in reversed(left))
    for i in left:
        pi[i] = min(k * scores[i] / total, 1.0)
    return pi, taken


def _weighted(sample: Sequence[int], pi: Sequence[float]) -> list[float]:
    return [1 / p if i in sample else 0.0 for i, p in enumerate(pi)]


def _tail_and_size(scores: Sequence[float], k: int) -> tuple[list[float], list[int], list[int], int]:
    """π, the rows that are certain, the others, and how many of those to draw."""
    pi, _ = inclusion(scores, k)
    certain = [i for i, p in enumerate(pi) if p > 1 - 1e-12]
    tail = [i for i, p in enumerate(pi) if 0 < p <= 1 - 1e-12]
    return pi, certain, tail, round(sum(pi)) - len(certain)


def pivotal(scores: Sequence[float], uniforms: Sequence[float], k: int, order: str) -> list[float]:
    """Neighbours fight, winners and survivors meet the next neighbour, until one is left."""
    n = len(scores)
    pi, taken = inclusion(scores, k)
    keys = uniforms[:n] if order == "random" else range(n)
    rows = sorted((i for i in range(n) if pi[i] > 0 and i not in taken), key=lambda i: (pi[i] == 1.0, keys[i]))
    numbers = list(uniforms[n:] if order == "random" else uniforms)
    places = 1
    while places < n:
        places *= 2
    standing: list[tuple[int, float]] = [(i, pi[i]) for i in rows] + [(-1, 0.0)] * (places - len(rows))
    sample = list(taken)
    while len(standing) > 1:
        following = []
        for (i, a), (j, b) in zip(standing[0::2], standing[1::2], strict=True):
            u = numbers.pop(0)
            if a + b <= 1:
                following.append((i if a > 0 and u < a / (a + b) else j, a + b))
            else:
                wins = a + b < 2 and u < (1 - b) / ((1 - a) + (1 - b))
                sample.append(i if wins else j)
                following.append((j if wins else i, a + b - 1))
        standing = following
    if standing[0][1] > 0.5:
        sample.append(standing[0][0])
    return _weighted(sample, pi)


def bernoulli(scores: Sequence[float], uniforms: Sequence[float], k: int, slots: int) -> list[float]:
    """Every tail row decides for itself; too many are thinned to the slots there are, by their keys."""
    n = len(scores)
    pi, certain = inclusion(scores, k)
    keys, numbers = (uniforms[:n], uniforms[n:]) if slots < n else ([0.0] * n, uniforms)
    chosen = [i for i in range(n) if i not in certain and numbers[i] < pi[i]]
    room = slots - len(certain)
    kept = sorted(chosen, key=lambda i: keys[i])[:room]
    coefficients = [0.0] * n
    for i in certain:
        coefficients[i] = 1.0
    for i in kept:
        coefficients[i] = max(len(chosen) / room, 1.0) / pi[i]
    return coefficients


def conditional_poisson(scores: Sequence[float], uniforms: Sequence[float], k: int) -> list[float]:
    """Divided down a tree, with elementary symmetric functions of odds that are fitted one at a time."""
    pi, certain, tail, size = _tail_and_size(scores, k)
    odds = {i: pi[i] / (1 - pi[i]) for i in tail}
    for _ in range(300):
        for i in tail:
            others = [odds[j] for j in tail if j != i]
            odds[i] = pi[i] / (1 - pi[i]) * _symmetric(others, size) / _symmetric(others, size - 1)
    sample = _down_the_tree(len(scores), odds, dict.fromkeys(tail, 0.0), size, uniforms, special=False)
    return _weighted(certain + sample, pi)


def sampford(scores: Sequence[float], uniforms: Sequence[float], k: int) -> list[float]:
    """Divided down a tree, from the odds of π, with one row that counts 1 − π times."""
    pi, certain, tail, size = _tail_and_size(scores, k)
    odds = {i: pi[i] / (1 - pi[i]) for i in tail}
    marks = {i: 1 - pi[i] for i in tail}
    return _weighted(certain + _down_the_tree(len(scores), odds, marks, size, uniforms, special=bool(tail)), pi)


def priority(scores: Sequence[float], uniforms: Sequence[float], k: int) -> list[float]:
    """The k largest s/u, each weighing max(1, t/s) with t the next one."""
    n = len(scores)
    order = sorted((i for i in range(n) if scores[i] > 0), key=lambda i: -scores[i] / (1 - uniforms[i]))
    threshold = scores[order[k]] / (1 - uniforms[order[k]]) if len(order) > k else 0.0
    return [max(1.0, threshold / s) if i in order[:k] else 0.0 for i, s in enumerate(scores)]


def _down_the_tree(
    n: int, odds: dict[int, float], marks: dict[int, float], size: int, uniforms: Sequence[float], special: bool
) -> list[int]:
    """Halve the rows level by level; each number says how many of the sample, and the special row, are on the left."""
    places = 1
    while places < n:
        places *= 2
    numbers, waiting, sample = list(uniforms), [(list(range(places)), size, special)], []
    while waiting:
        rows, held, marked = waiting.pop(0)
        if len(rows) == 1:
            sample += rows * held
            continue
        left, right = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        plain = {
            (side, t): _total(half, odds, t) for side, half in enumerate((left, right)) for t in range(held + 1)
        }
        heavy = {
            (side, t): _total(half, odds, t, marks)
            for side, half in enumerate((left, right))
            for t in range(held + 1)
        }
        ways = [(t, False, plain[0, t] * (heavy if marked else plain)[1, held - t]) for t in range(held + 1)]
        if marked:
            ways += [(t, True, heavy[0, t] * plain[1, held - t]) for t in range(held + 1)]
        chances = [chance for _, _, chance in ways]
        t, with_left, _ = ways[_invert(chances, range(len(ways)), numbers.pop(0) * sum(chances))]
        waiting += [(left, t, with_left), (right, held - t, marked and not with_left)]
    return sample


def _total(rows: Sequence[int], odds: dict[int, float], size: int, marks: dict[int, float] | None = None) -> float:
    """Sum over the subsets of that size of the product of their odds, times the sum of their marks if there are any."""
    return sum(
        math.prod(odds[i] for i in some) * (1.0 if marks is None else sum(marks[i] for i in some))
        for some in itertools.combinations([i for i in rows if i in odds], size)
    )


def _symmetric(values: Sequence[float], degree: int) -> float:
    """Elementary symmetric function: the sum over all subsets of that size of the product of their values."""
    sums = [1.0] + [0.0] * len(values)
    for v in values:
        for m in range(len(values), 0, -1):
            sums[m] += v * sums[m - 1]
    return sums[degree] if 0 <= degree <= len(values) else 0.0
