"""At equal bytes: the largest size that fits and no larger, ratios to the baseline, and a table that ranks."""

from __future__ import annotations

from statistics import median

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from support.captures import capture

from wtacrs.estimators import InputError, make, saved_bytes
from wtacrs.estimators.composites.recommended import recommended
from wtacrs.estimators.core.sizing import resized, size_of, sized
from wtacrs.integration.tables.compare import comparison_table, oracle_ratio_table, ratio_table
from wtacrs.validation.layers.candidates import candidates_from, fitted, stored_bytes
from wtacrs.validation.layers.captures import LayerCapture
from wtacrs.validation.layers.compare import compare
from wtacrs.validation.layers.equal_bytes import BASELINE, COMBINATIONS, byte_ratios, left_out
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.compare import ComparisonResult, ComparisonRow
from wtacrs.validation.summaries.compare import oracle_ratios

SHARES = (0.2, 0.5)
SIZED = (*COMBINATIONS, BASELINE, "rademacher_sketch", "prac", "low_rank", "mixed_precision_rows")


@pytest.fixture(scope="module")
def rows() -> list[ComparisonRow]:
    layers = {"a": capture(0, 80, 32, 12), "b": capture(1, 80, 16, 40), "c": capture(2, 60, 48, 6)}
    return compare(layers, candidates_from([BASELINE, "systematic", "recommended"], (0.3,), SHARES), draws=4)


@pytest.mark.parametrize("spec", SIZED)
@settings(max_examples=4)
@given(n=st.integers(2, 150), d=st.integers(2, 70), share=st.floats(0.02, 1.0))
def test_the_largest_that_fits(spec: str, n: int, d: int, share: float) -> None:
    allowed = int(share * n * d * 2)
    found = fitted(spec, share, (n, d), torch.bfloat16)
    if found is None:
        size = 1
    else:
        assert saved_bytes(found.compress(torch.zeros(n, d, dtype=torch.bfloat16))) <= allowed
        name, chosen = size_of(found)
        size = int(chosen) + 1
        if size > {"budget": n, "slots": 8 * n, "rank": min(n, d)}[name]:
            return
    smallest = make(spec, **{f: 1 for f in ("budget", "slots", "rank") if spec in PLAIN[f]})
    assert stored_bytes(resized(smallest, size), (n, d), torch.bfloat16) > allowed


@pytest.mark.parametrize("spec", SIZED)
def test_bytes_of_a_large_x_are_found_without_its_values(spec: str) -> None:
    """33,280 numbers, beyond what is compressed for its bytes alone."""
    estimator = resized(sized(spec), 20)
    found = estimator.compress(torch.randn(520, 64).bfloat16(), generator=torch.Generator().manual_seed(0))
    assert stored_bytes(estimator, (520, 64), torch.bfloat16) == saved_bytes(found)


PLAIN = {
    "budget": ("systematic", BASELINE, "rademacher_sketch"),
    "slots": ("mixed_precision_rows",),
    "rank": ("prac", "low_rank"),
}


def test_what_has_no_size_fits_or_does_not() -> None:
    assert fitted("fp8", 0.6, (64, 64), torch.bfloat16) == make("fp8")
    assert fitted("fp8", 0.4, (64, 64), torch.bfloat16) is None
    assert fitted("recommended", 0.3, (64, 64), torch.bfloat16) == recommended(bytes=0.3, shape=(64, 64))
    with pytest.raises(InputError, match="no budget, slots or rank"):
        resized(make("fp8"), 3)
    with pytest.raises(InputError, match=r"bytes=0\.0 must be a share"):
        fitted("crs", 0.0, (64, 64), torch.bfloat16)


def test_all_stay_within_the_bytes_and_count_rows_without_padding(rows: list[ComparisonRow]) -> None:
    at_shares = [row for row in rows if row.bytes_share is not None]
    assert len(at_shares) == 3 * 3 * 2 * 2
    for row in at_shares:
        assert row.saved_bytes <= row.bytes_share * row.exact_bytes
        assert row.n in (60, 45)
        assert row.exact_macs == row.n * row.d * row.m


def test_ratios_are_medians_over_layers(rows: list[ComparisonRow]) -> None:
    found = byte_ratios(rows)
    assert len(found) == 2 * 2 * 2
    assert [entry.median for entry in found[:2]] == sorted(entry.median for entry in found[:2])
    for entry in found:
        mine = [r for r in rows if (r.bytes_share, r.scores) == (entry.share, entry.scores)]
        theirs = [r for r in mine if r.requested == BASELINE]
        ours = [r for r in mine if r.requested == entry.estimator]
        ratios = [a.variance / b.variance for a, b in zip(ours, theirs, strict=True)]
        assert entry.layers == 3
        assert entry.median == median(ratios)
        assert entry.worst == max(ratios)
        assert entry.macs == median(r.macs / (r.n * r.d * r.m) for r in ours)
        assert entry.baseline_macs == pytest.approx(median(r.budget / r.n for r in theirs))


def test_layers_that_no_ratio_counts_are_told_with_the_reason(rows: list[ComparisonRow]) -> None:
    assert left_out(rows) == []
    layers = list(dict.fromkeys(row.layer for row in rows))
    change = {layers[0]: {"budget": 1}, layers[1]: {"variance": 0.0}}
    changed = [
        row.model_copy(update=change.get(row.layer, {})) if row.requested == BASELINE else row for row in rows
    ]
    found = left_out(changed)
    assert {entry[2:] for entry in found} == {(3, 1, 1)}
    assert {entry.layers for entry in byte_ratios(changed)} == {1}
    console = Console(width=200)
    with console.capture() as shown:
        console.print(ratio_table(ComparisonResult(stamp=stamp(seed=0), rows=changed)))
    told = "left out are 1 too small for two rows of wta_crs in these bytes and 1 where wta_crs has no variance"
    assert " ".join(shown.get().split()).count(told) == len(found) == 4


def test_layers_without_variance_under_the_oracle_are_counted(rows: list[ComparisonRow]) -> None:
    first = rows[0].layer
    changed = [
        row.model_copy(update={"variance": 0.0}) if (row.layer, row.scores) == (first, "oracle") else row
        for row in rows
    ]
    assert {(len(entry.ratios), entry.left_out) for entry in oracle_ratios(rows)} == {(3, 0)}
    assert {(len(entry.ratios), entry.left_out) for entry in oracle_ratios(changed)} == {(2, 1)}
    console = Console(width=200)
    with console.capture() as shown:
        console.print(oracle_ratio_table(ComparisonResult(stamp=stamp(seed=0), rows=changed)))
    assert "2 of 3" in shown.get()
    assert "where they leave none, there is no ratio" in " ".join(shown.get().split())


def test_bits_by_the_row_beat_whole_rows(generator: torch.Generator) -> None:
    x, dy = torch.randn(200, 64, generator=generator) + 1, torch.randn(200, 8, generator=generator)
    layers = {"layer": LayerCapture(x, dy, torch.ones(200, dtype=torch.bool))}
    table = byte_ratios(
        compare(layers, candidates_from([BASELINE, COMBINATIONS[0], COMBINATIONS[9]], (), (0.2,)), draws=16)
    )
    for kind in ("oracle", "row-norms"):
        by_name = {entry.estimator: entry.median for entry in table if entry.scores == kind}
        assert by_name[COMBINATIONS[9]] < 0.5 * by_name[COMBINATIONS[0]]


def test_the_tables_show_what_the_rows_say(rows: list[ComparisonRow]) -> None:
    result = ComparisonResult(stamp=stamp(seed=0), rows=rows)
    console = Console(width=200)
    with console.capture() as shown:
        for build in (comparison_table, oracle_ratio_table, ratio_table):
            console.print(build(result))
    text = shown.get()
    for entry in byte_ratios(rows):
        assert f"{entry.median:.4f}" in text
        assert f"{entry.macs:.1%}" in text
    for words in (
        "equal rows, oracle",
        "equal bytes, row-norms",
        "closed form",
        "sampled, MSE ±",
        "recommended",
        "20% bytes",
    ):
        assert words in text
    norms = [
        r for r in rows if r.scores == "row-norms" and r.bytes_share is None and r.requested.startswith("wta")
    ]
    best = [r for r in rows if r.scores == "oracle" and r.bytes_share is None and r.requested.startswith("wta")]
    ratio = median(a.variance / b.variance for a, b in zip(norms, best, strict=True))
    assert f"{ratio:.3g}×" in text
