"""The benchmark as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table

from wtacrs.figures.sections.bench import roofs_sentence
from wtacrs.figures.sections.blocks import number
from wtacrs.integration.tables.front import front_table
from wtacrs.validation.records.bench import BenchResult
from wtacrs.validation.summaries.bench import BenchSummary, bench_summaries

_COLUMNS = ("kept", "compress", "contract", "× exact", "variance", "/ WTA-CRS", "GMAC", "moved", "roof")
_SCORES = {"row-norms": "norms", "oracle": "oracle", "stale": "stale"}


def bench_tables(result: BenchResult) -> Iterator[Table]:
    """A table per problem, or one for all captured layers, and one for the whole step."""
    found = bench_summaries(result.rows)
    groups = list(dict.fromkeys(summary.group for summary in found))
    for group in groups:
        mine = [summary for summary in found if summary.group == group]
        count = f", {mine[0].problems} of them" if mine[0].problems > 1 else ""
        table = Table(
            title=f"{group}{count}, {result.precision}, medians of {result.rounds} rounds, ms",
            title_justify="left",
            box=box.SIMPLE,
        )
        table.add_column("estimator", overflow="fold", min_width=27)
        table.add_column("scores", no_wrap=True)
        for column in _COLUMNS:
            table.add_column(column, justify="right", no_wrap=True)
        for one in mine:
            table.add_row(*_row(one))
        if group == groups[-1]:
            table.caption = _CAPTION.format(roofs_sentence(result))
            table.caption_justify = "left"
        yield table
    if result.step is not None:
        yield front_table(result.step)


def _row(one: BenchSummary) -> list[str]:
    worst = "" if one.worst is None or one.problems == 1 else f", {number(one.worst)}"
    return [
        one.estimator,
        _SCORES[one.scores],
        number(one.kept),
        number(1e3 * one.compress),
        number(1e3 * one.contract),
        f"{_times(one.ratio)} [{_times(one.low)}, {_times(one.high)}]",
        f"{number(one.error)}{'*' * one.sampled}",
        f"{number(one.over_paper)}{worst}",
        number(one.gigamacs),
        number(one.moved),
        number(one.roof_share),
    ]


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 1000 else number(ratio)


_CAPTION = """{}.
kept: of x's bytes in bf16. × exact: median and quartiles. variance: with squared bias, of ‖G‖²; * by Monte Carlo.
/ WTA-CRS: over the paper's at equal bf16 bytes and scores, median and worst layer. moved: bytes that torch's operations
read and write, of the least. roof: least time for MACs and bytes, of the measured one."""
