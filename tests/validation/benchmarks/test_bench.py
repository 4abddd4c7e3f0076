"""Every number of the benchmark that is no time is what it says."""

from __future__ import annotations

import math

import pytest
import torch

from wtacrs.estimators import InputError, available, joint_norms, make, saved_bytes
from wtacrs.validation.benchmarks import roofline
from wtacrs.validation.benchmarks.bench import (
    BenchProblem,
    Entry,
    bench_problem,
    captured_problem,
    default_entries,
    entry_from,
    gaussian_problem,
    least_bytes,
    paper_variance,
    product_precision,
    registered_entries,
    time_entries,
)
from wtacrs.validation.benchmarks.roofline import better, measure_roofs
from wtacrs.validation.layers.captures import LayerCapture
from wtacrs.validation.layers.compare import ZeroProduct
from wtacrs.validation.records.bench import BenchRow, Quartiles, Roofs

pytestmark = pytest.mark.usefixtures("unchecked")
N, D, M = 96, 64, 48
ROOFS = Roofs(products={"fp32": 1e9, "bf16": 2e9, "int8": 8e9}, copy_rate=1e8)


def problem(precision: str = "fp32") -> BenchProblem:
    return gaussian_problem(N, D, M, precision=precision, device="cpu")


def rows_of(*entries: Entry, precision: str = "fp32", draws: int = 3) -> list[BenchRow]:
    return bench_problem(problem(precision), entries, ROOFS, precision=precision, rounds=2, draws=draws)


def test_an_entry_is_a_spec_or_what_fits_a_share() -> None:
    assert entry_from("crs(budget=0.3)") == Entry("crs(budget=0.3)")
    assert entry_from("crs at 0.3", "oracle") == Entry("crs", 0.3, "oracle")
    assert entry_from("crs at 0.3").text == "crs at 0.3"
    with pytest.raises(InputError, match="look at me/mine"):
        entry_from('"look at me/mine.py:Mine"(budget=0.3)')
    for text, fragment in {
        "recommended": "is made for a share of the bytes",
        "crs at much": "must be a share such as 0.3",
        "crs at 1.5": "must be a share of the bytes in",
        "crs at 0": "must be a share of the bytes in",
        "wta_csr(budget=0.3)": "did you mean wta_crs",
        "crs": "needs budget",
    }.items():
        with pytest.raises(InputError, match=fragment):
            entry_from(text)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scores", ["row-norms", "oracle"])
def test_a_share_is_one_of_the_bytes_in_bf16(dtype: torch.dtype, scores: str) -> None:
    estimator = entry_from("recommended at 0.3", scores).at(512, 128, dtype)
    assert estimator is not None
    assert estimator.name == ("dithered_rows" if scores == "row-norms" else "control_variate")
    kept = saved_bytes(estimator.compress(torch.randn(512, 128).to(dtype)))
    assert 0.25 < kept / (2 * 512 * 128) <= 0.3
    crs = entry_from("crs at 0.3").at(512, 128, dtype)
    assert saved_bytes(crs.compress(torch.randn(512, 128).to(dtype))) <= 0.3 * 2 * 512 * 128


def test_what_does_not_fit_has_no_row() -> None:
    tiny = entry_from("recommended at 0.001")
    assert tiny.at(8, 4, torch.bfloat16) is None
    assert rows_of(tiny, entry_from("exact"))[0].estimator == "exact"


def test_every_entry_has_a_row_or_a_reason() -> None:
    """At one row of one column some estimators have no size that fits, and others refuse the shape."""
    small, entries, why = gaussian_problem(1, 1, 1, precision="fp32", device="cpu"), registered_entries(), {}
    found = bench_problem(
        small, entries, ROOFS, precision="fp32", rounds=1, draws=3, skipped=lambda one, text: why.update({one.text: text})
    )  # fmt: skip
    assert "exact" in {row.requested for row in found}
    assert sorted([*why, *(row.requested for row in found)]) == sorted(entry.text for entry in entries)
    assert next(text for name, text in why.items() if name.startswith("velora")).startswith(
        "velora: groups=8 must be"
    )
    with pytest.raises(InputError, match="scores='stale'"):  # what the problem lacks is nobody's size
        bench_problem(small, [entry_from("exact", "stale")], ROOFS, precision="fp32", rounds=1, draws=3)


def test_a_row_says_what_the_estimator_says() -> None:
    x, dy = problem().x, problem().dy
    norms, oracle, exact = rows_of(
        entry_from("wta_crs(budget=0.25)"), entry_from("wta_crs(budget=0.25)", "oracle"), entry_from("exact")
    )
    estimator, unit = make("wta_crs(budget=0.25)"), float((dy.T @ x).double().square().sum())
    assert norms.variance == pytest.approx(float(estimator.variance(x, dy)) / unit, rel=1e-5)
    scores = joint_norms(x, dy)
    assert oracle.variance == pytest.approx(float(estimator.variance(x, dy, scores=scores)) / unit, rel=1e-5)
    assert (norms.draws, norms.variance_error, norms.bias_squared) == (None, None, 0.0)
    assert norms.kept == saved_bytes(estimator.compress(x))
    assert norms.kept_share == norms.kept / (2 * N * D)
    assert norms.macs == 24 * D * M
    assert (exact.variance, exact.over_paper, exact.kept_share) == (0.0, None, 2.0)
    assert norms.moved >= norms.kept
    assert norms.operations > exact.operations
    assert len({norms.exact.low, norms.exact.median, norms.exact.high}) >= 1


def test_variance_without_a_closed_form_is_sampled_and_marked() -> None:
    (row,) = rows_of(entry_from("systematic(budget=0.25)"), draws=5)
    assert row.draws == 5
    assert row.variance_error is not None
    assert 0 < row.variance_error < 10 * row.variance


def test_bias_counts_as_error() -> None:
    (row,) = rows_of(entry_from("topk(budget=0.25)"))
    assert row.variance == 0.0
    assert row.bias_squared > 0.1
    assert row.error == row.bias_squared


def test_the_paper_keeps_as_many_bytes_in_bf16() -> None:
    """k rows of bf16 with index and weight: no more bytes than given, and one row more would be."""
    x, dy = problem().x, problem().dy
    scores = joint_norms(x, dy)
    kept = 24 * (2 * D) + 24 * 16
    allowed = [
        k for k in range(1, N) if saved_bytes(make("wta_crs", budget=k).compress(x.to(torch.bfloat16))) <= kept
    ]
    wanted = float(make("wta_crs", budget=max(allowed)).variance(x, dy, scores=scores))
    assert paper_variance(x, dy, scores, kept) == pytest.approx(wanted, rel=1e-9)
    assert paper_variance(x, dy, scores, 2 * N * D + 1) is None
    assert paper_variance(x, dy, scores, 1) is None
    (row,) = rows_of(Entry("wta_crs(budget=0.25)", None, "oracle"), precision="bf16")
    assert row.over_paper == pytest.approx(1.0, rel=1e-3)


def test_the_least_bytes_and_seconds() -> None:
    x, dy = problem().x, problem().dy
    exact, crs = make("exact"), make("crs(budget=0.25)")
    assert least_bytes(exact, x, dy, 0, scores_given=False) == (N * D + N * M + M * D) * 4
    assert least_bytes(crs, x, dy, 10, scores_given=False) == (N * D + 24 * M + M * D) * 4 + 20
    assert least_bytes(crs, x, dy, 10, scores_given=True) == (24 * D + 24 * M + M * D) * 4 + 20
    assert ROOFS.least_seconds(10**9, 0, "bf16") == 1.0
    assert ROOFS.least_seconds(10**9, 0, "int8") == 0.25
    assert ROOFS.least_seconds(1, 10**8, "fp32") == 1.0
    assert ROOFS.least_seconds(None, 10**8, "fp32") == 1.0
    assert product_precision(make("dithered_rows(slots=2.0, product='int8')"), x, dy, "fp32") == "int8"
    assert product_precision(make("dithered_rows(slots=2.0, product='float')"), x, dy, "fp32") == "fp32"


def test_padding_is_left_out_of_captured_layers() -> None:
    x, dy = problem().x, problem().dy
    mask = torch.arange(N) < 40
    found = captured_problem("a#0", LayerCapture(x, dy, mask), precision="bf16", device="cpu")
    assert found.x.shape == (40, D)
    assert found.dy.dtype == torch.bfloat16
    dead = captured_problem("dead#0", LayerCapture(x, 0 * dy, mask), precision="fp32", device="cpu")
    with pytest.raises(ZeroProduct):
        bench_problem(dead, [entry_from("exact")], ROOFS, precision="fp32", rounds=1, draws=3)


def test_all_take_turns_in_every_round() -> None:
    timed = time_entries(problem(), [entry_from("exact"), entry_from("crs(budget=0.3)")], rounds=3)
    assert [len(one.ratios) for one in timed] == [3, 3]
    assert timed[0].exact == timed[1].exact
    assert timed[0].both == [a + b for a, b in zip(timed[0].compress, timed[0].contract, strict=True)]


def test_every_registered_estimator_can_be_measured() -> None:
    entries = registered_entries()
    assert len(entries) == len(available())
    found = rows_of(*entries)
    assert [row.requested for row in found] == [entry.text for entry in entries]
    assert {entry.scores for entry in default_entries()} == {"row-norms", "oracle"}


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_registered_estimator_runs_on_cuda_and_keeps_as_many_bytes(precision: str) -> None:
    def kept(device: str) -> dict[str, int]:
        made = gaussian_problem(N, D, M, precision=precision, device=device)
        found = bench_problem(made, registered_entries(), ROOFS, precision=precision, rounds=1, draws=3)
        assert all(math.isfinite(row.error) for row in found)
        return {row.requested: row.kept for row in found}

    assert kept("cuda") == kept("cpu")


@pytest.mark.cuda
def test_roofs_of_cuda() -> None:
    roofs = measure_roofs(["bf16"], "cuda", rounds=2, side=1024, copied=2**24)
    assert {"fp32", "bf16", "int8"} <= set(roofs.products)


def test_quartiles() -> None:
    assert Quartiles.of([2.0]) == Quartiles(low=2.0, median=2.0, high=2.0)
    assert Quartiles.of([4.0, 1.0, 2.0, 3.0, 5.0]) == Quartiles(low=2.0, median=3.0, high=4.0)


def test_roofs_are_measured_and_the_higher_ones_count(monkeypatch: pytest.MonkeyPatch) -> None:
    roofs = measure_roofs(["bf16"], "cpu", rounds=1, side=32, copied=4096)
    assert {"fp32", "bf16"} <= set(roofs.products)
    assert min(*roofs.products.values(), roofs.copy_rate) > 0
    higher = better(ROOFS, Roofs(products={"fp32": 2e9, "bf16": 1e9, "int8": 1e9}, copy_rate=2e8))
    assert (higher.products, higher.copy_rate) == ({"fp32": 2e9, "bf16": 2e9, "int8": 8e9}, 2e8)

    def missing(*_: object) -> None:
        raise RuntimeError("not implemented for this device")

    monkeypatch.setattr(roofline.torch, "_int_mm", missing)
    assert "int8" not in measure_roofs(["bf16"], "cpu", rounds=1, side=32, copied=4096).products
