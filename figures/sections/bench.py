"""The benchmark in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import bench, front
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import SCORES, Cell, Code, Named, Paragraph, Section, Table, number
from wtacrs.validation.records.bench import BenchResult
from wtacrs.validation.summaries.bench import BenchSummary, bench_summaries

_HEAD = (
    "x and dY", "estimator", "scores", "bytes of bf16's", "compress, ms", "contract, ms", "time of the exact product's",
    "quartiles", "variance", "of WTA-CRS's at equal bytes", "worst layer", "10⁹ MACs", "bytes moved of the least",
    "of the roof",
)  # fmt: skip


def section(results: Sequence[Named[BenchResult]]) -> Section:
    """What the machine reaches, the front, the training step, and all numbers."""
    section = Section("Benchmark")
    for _, result in section.each(results):
        section.add(Paragraph(f"{roofs_sentence(result)}."))
        section.draw(
            partial(bench.build, result),
            "The front of variance, bytes and time",
            "Each point is an estimator: bytes kept, of x in bf16, against the time of compress and contract, of "
            "the exact product in the same rounds, with quartiles; the colour is the error of one estimate. Squares know "
            "the oracle's scores. Ringed: not beaten in all three.",
            finding=partial(findings.of_bench, result),
        )
        if result.step is not None:
            section.draw(
                partial(front.build, result.step),
                "The whole training step",
                "What a step keeps against its time, both of the exact step; the colour is the noise that it adds.",
                finding=partial(findings.of_front, result.step),
            )
        section.add(
            Table(_HEAD, [_row(one) for one in bench_summaries(result.rows)], numeric=range(3, len(_HEAD)))
        )
    return section


def roofs_sentence(result: BenchResult) -> str:
    """What the machine reaches in words."""
    products = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in result.roofs.products.items())
    return (
        f"{result.stamp.device}, {result.stamp.threads} threads: a plain product reaches {products}, a copy "
        f"{result.roofs.copy_rate / 1e9:,.1f} GB/s"
    )


def _row(one: BenchSummary) -> list[Cell]:
    sampled = ", Monte Carlo" if one.sampled else ""
    return [
        one.group, Code(one.estimator), SCORES[one.scores], number(one.kept), number(1e3 * one.compress),
        number(1e3 * one.contract), number(one.ratio), f"{number(one.low)}–{number(one.high)}",
        f"{number(one.error)}{sampled}", number(one.over_paper), number(one.worst), number(one.gigamacs),
        number(one.moved), number(one.roof_share),
    ]  # fmt: skip
