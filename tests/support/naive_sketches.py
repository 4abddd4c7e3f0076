"""Slow transcriptions of the sketches, projections and biased baselines, in plain Python numbers.

Random numbers are rebuilt with Python's unbounded integers from the same seed, every operator is written out as a
matrix (a list of rows), and every product is a sum over its entries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

Matrix = list[list[float]]

ENTRIES, PLACES, DIRECTIONS = 0, 1, 2


def mix64(number: int) -> int:
    """splitmix64's finalizer on 0 … 2⁶⁴ − 1."""
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB % 2**64
    return number ^ (number >> 31)


def bits(seed: int, stream: int, counter: int) -> int:
    key = mix64(mix64(seed) ^ (stream + 1))
    return mix64((key + (counter + 1) * 0x9E3779B97F4A7C15) % 2**64)


def uniform(seed: int, stream: int, counter: int) -> float:
    return (bits(seed, stream, counter) >> 11) / 2**53


def sign(seed: int, stream: int, counter: int) -> float:
    return -1.0 if bits(seed, stream, counter) >= 2**63 else 1.0


def normal(seed: int, stream: int, counter: int) -> float:
    return NormalDist().inv_cdf(((bits(seed, stream, counter) >> 12) + 0.5) / 2**52)


def subset(seed: int, stream: int, allowed: Sequence[bool], size: int) -> list[int]:
    keys = [uniform(seed, stream, i) + (0 if allowed[i] else 1) for i in range(len(allowed))]
    return sorted(sorted(range(len(allowed)), key=lambda i: keys[i])[:size])


def gaussian_sketch(seed: int, n: int, k: int) -> Matrix:
    return [[normal(seed, ENTRIES, i * k + j) / math.sqrt(k) for i in range(n)] for j in range(k)]


def rademacher_sketch(seed: int, n: int, k: int) -> Matrix:
    return [[sign(seed, ENTRIES, i * k + j) / math.sqrt(k) for i in range(n)] for j in range(k)]


def count_sketch(seed: int, n: int, k: int) -> Matrix:
    place = [math.floor(uniform(seed, PLACES, i) * k) for i in range(n)]
    return [[sign(seed, ENTRIES, i) if place[i] == j else 0.0 for i in range(n)] for j in range(k)]


def srht(seed: int, n: int, k: int) -> Matrix:
    """Row r of the Hadamard matrix has −1 where r and i share an odd number of binary digits."""
    size = 1
    while size < n:
        size *= 2
    taken = subset(seed, PLACES, [True] * size, k)
    return [[(-1) ** (r & i).bit_count() * sign(seed, ENTRIES, i) / math.sqrt(k) for i in range(n)] for r in taken]


def random_projection(seed: int, d: int, r: int, kind: str) -> Matrix:
    entry = normal if kind == "gaussian" else sign
    return [[entry(seed, DIRECTIONS, i * r + j) / math.sqrt(r) for j in range(r)] for i in range(d)]


def sketched_product(sketch: Matrix, x: Matrix, dy: Matrix) -> Matrix:
    return product(transpose(product(sketch, dy)), product(sketch, x))


def projected_product(projection: Matrix, x: Matrix, dy: Matrix) -> Matrix:
    return product(product(transpose(dy), product(x, projection)), transpose(projection))


def complement_directions(seed: int, principal: Matrix, count: int) -> Matrix:
    """Gram–Schmidt on normal columns, after the principal ones; both as lists of columns."""
    d = len(principal[0]) if principal else 0
    columns = [list(column) for column in principal]
    for j in range(count):
        column = [normal(seed, DIRECTIONS, i * count + j) for i in range(d)]
        for _ in range(2):
            for other in columns:
                along = dot(other, column)
                column = [c - along * o for c, o in zip(column, other, strict=True)]
        length = math.sqrt(dot(column, column))
        columns.append([c / length for c in column])
    return columns[len(principal) :]


def velora(x: Matrix, groups: int) -> Matrix:
    """Every piece replaced by its projection on the average piece."""
    d = len(x[0])
    size = math.ceil(d / groups)
    padded = [row + [0.0] * (groups * size - d) for row in x]
    pieces = [[row[g * size : (g + 1) * size] for g in range(groups)] for row in padded]
    total = [math.fsum(piece[s] for row in pieces for piece in row) for s in range(size)]
    length = math.sqrt(dot(total, total))
    v = [t / length if length else 0.0 for t in total]
    rebuilt = [[dot(v, piece) * c for piece in row for c in v] for row in pieces]
    return [row[:d] for row in rebuilt]


def pamm(x: Matrix, chosen: Sequence[int], tolerance: float) -> Matrix:
    """Every row replaced by its projection on the nearest representative, or dropped."""
    rebuilt, dropped = [], 0
    for row in x:
        best = max(chosen, key=lambda c: (abs(cosine(row, x[c])), -c))
        length = dot(x[best], x[best])
        factor = dot(row, x[best]) / length if length else 0.0
        if 1 - cosine(row, x[best]) ** 2 > tolerance:
            factor, dropped = 0.0, dropped + 1
        rebuilt.append([factor * c for c in x[best]])
    scale = len(x) / max(len(x) - dropped, 1)
    return [[scale * value for value in row] for row in rebuilt]


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    lengths = math.sqrt(dot(a, a) * dot(b, b))
    return dot(a, b) / lengths if lengths else 0.0


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def transpose(a: Matrix) -> Matrix:
    return [list(column) for column in zip(*a, strict=True)]


def product(a: Matrix, b: Matrix) -> Matrix:
    columns = transpose(b)
    return [[dot(row, column) for column in columns] for row in a]
