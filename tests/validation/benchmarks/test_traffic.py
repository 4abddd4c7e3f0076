"""Operations and bytes of known pieces of code."""

from __future__ import annotations

import torch

from wtacrs.estimators import make
from wtacrs.validation.benchmarks.traffic import Traffic

A = torch.ones(6, 4)
BYTES = 6 * 4 * 4


def counted(run) -> tuple[int, int]:
    with Traffic() as traffic:
        run()
    return traffic.operations, traffic.moved


def test_reads_and_writes_of_known_operations() -> None:
    out, rows = torch.empty(6, 4), torch.tensor([0, 2])
    assert counted(lambda: A + 1) == (1, 2 * BYTES)
    assert counted(lambda: torch.add(A, A, out=out)) == (1, 3 * BYTES)
    assert counted(lambda: A.clone().mul_(2)) == (2, 4 * BYTES)
    assert counted(lambda: A @ A.T) == (1, 2 * BYTES + 6 * 6 * 4)
    assert counted(lambda: A.index_select(0, rows)) == (1, 2 * (2 * 4 * 4) + 2 * 8)
    assert counted(lambda: A * A[:1].expand(6, 4)) == (1, 2 * BYTES + 4 * 4)


def test_views_and_empty_tensors_are_free() -> None:
    assert counted(lambda: A.T.reshape(4, 6)[:2].unsqueeze(0)) == (0, 0)
    assert counted(lambda: torch.empty(100)) == (0, 0)


def test_the_exact_product_moves_its_factors_and_its_result() -> None:
    x, dy = torch.ones(6, 4), torch.ones(6, 3)
    exact = make("exact")
    assert counted(lambda: dy.T @ x) == (1, (6 * 4 + 6 * 3 + 3 * 4) * 4)
    assert counted(lambda: exact.contract(exact.compress(x), dy))[1] >= (6 * 4 + 6 * 3 + 3 * 4) * 4
