"""The study at equal bytes: bytes, variance and multiplications of both rivals together."""

from __future__ import annotations

from statistics import median

import pytest
import torch
from rich.console import Console

from wtacrs.integration.tables import ratio_table
from wtacrs.validation.captures import LayerCapture
from wtacrs.validation.equal_bytes import byte_ratios, compare_equal_bytes
from wtacrs.validation.problems import make_problem
from wtacrs.validation.results import ComparisonRow

SHARES = (0.2, 0.5)


def capture(seed: int, n: int, d: int, m: int) -> LayerCapture:
    x, dy = make_problem("gaussian", n, d, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return LayerCapture(x, dy, torch.arange(n) % 4 != 0)


@pytest.fixture(scope="module")
def rows() -> dict[float, list[ComparisonRow]]:
    layers = {"a": capture(0, 80, 32, 12), "b": capture(1, 80, 16, 40), "c": capture(2, 60, 48, 6)}
    return compare_equal_bytes(layers, SHARES, draws=4, generator=torch.Generator().manual_seed(0))


def rivals(rows: list[ComparisonRow], kind: str) -> tuple[list[ComparisonRow], list[ComparisonRow]]:
    """Baseline and recommendation, layer by layer."""
    mine = [row for row in rows if row.scores == kind]
    return [r for r in mine if r.estimator.startswith("wta_crs")], [
        r for r in mine if not r.estimator.startswith("wta_crs")
    ]


def test_both_rivals_stay_within_the_bytes_and_count_rows_without_padding(
    rows: dict[float, list[ComparisonRow]],
) -> None:
    for share, table in rows.items():
        assert len(table) == 3 * 2 * 2
        for row in table:
            assert row.saved_bytes <= share * row.exact_bytes
            assert row.n in (60, 45)
            assert row.exact_multiplications == row.n * row.d * row.m


def test_ratios_are_medians_over_layers(rows: dict[float, list[ComparisonRow]]) -> None:
    found = byte_ratios(rows)
    assert [(entry.share, entry.scores) for entry in found] == [
        (share, kind) for share in SHARES for kind in ("oracle", "row norms")
    ]
    for entry in found:
        theirs, ours = rivals(rows[entry.share], entry.scores)
        ratios = [a.variance / b.variance for a, b in zip(ours, theirs, strict=True)]
        assert entry.layers == 3
        assert entry.median == median(ratios)
        assert entry.worst == max(ratios)
        assert entry.multiplications == median(r.multiplications / (r.n * r.d * r.m) for r in ours)
        kept = [r.budget / r.n for r in theirs]
        assert entry.baseline_multiplications == pytest.approx(median(kept))  # its rows, and nothing else
        assert entry.multiplications > entry.baseline_multiplications


def test_the_table_shows_the_multiplications_of_both(rows: dict[float, list[ComparisonRow]]) -> None:
    (entry, *_) = ratios = byte_ratios(rows)
    console = Console(width=200)
    with console.capture() as shown:
        console.print(ratio_table([*ratios, entry._replace(multiplications=None)]))
    lines = [line.strip("│ ").split("│") for line in shown.get().splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line[-2:]] for line in lines]
    wanted = [[f"{e.multiplications:.1%}", f"{e.baseline_multiplications:.1%}"] for e in ratios]
    assert cells == [*wanted, ["–", wanted[0][1]]]
