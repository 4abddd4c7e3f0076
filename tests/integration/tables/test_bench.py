"""The tables of the benchmark: one a random problem, one for all captured layers, one of the step."""

from __future__ import annotations

import pytest
from rich.console import Console
from support.result_examples import bench

from wtacrs.integration.tables.bench import bench_tables
from wtacrs.validation.summaries.bench import CAPTURED, bench_summaries, not_beaten


def test_a_table_for_every_group() -> None:
    console = Console(width=140)
    tables = list(bench_tables(bench()))
    assert [table.row_count for table in tables] == [3, 1, 3]
    with console.capture() as shown:
        for table in tables:
            console.print(table)
    text = shown.get()
    assert "1,000 × 100 × 100, fp32, medians of 2 rounds, ms" in text
    assert f"{CAPTURED}, 2 of them" in text
    assert "0.5 [0.45, 0.6]" in text
    assert "0.5*" in text
    assert "0.7, 0.9" in text  # median and worst layer over the paper's WTA-CRS
    assert text.count("a copy 10.0 GB/s") == 1


def test_layers_are_summed_up_by_medians() -> None:
    *random, layers = bench_summaries(bench().rows)
    assert [one.problems for one in random] == [1, 1, 1]
    assert (layers.group, layers.problems, layers.sampled, layers.gigamacs) == (CAPTURED, 2, True, None)
    assert layers.compress == pytest.approx(1.4)
    assert layers.ratio == pytest.approx(0.7)
    assert (layers.over_paper, layers.worst) == (pytest.approx(0.7), 0.9)
    assert layers.kept == 120_000 / 400_000
    assert layers.moved == 10
    assert layers.roof_share == pytest.approx(0.002 / 1.4)


def test_what_is_worse_in_all_is_beaten_and_other_scores_do_not_beat() -> None:
    found = bench_summaries(bench().rows)[:3]
    assert not_beaten(found) == found
    worse = found[1]._replace(ratio=0.6, error=0.6)
    assert not_beaten([*found, worse]) == found
