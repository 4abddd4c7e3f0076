"""The table of estimators: relative moments, real bytes, padding left out, zero products skipped."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from support.false_alarms import share

from wtacrs.estimators import CRS, Estimator, InputError, NoClosedForm, joint_norms, make, row_norms
from wtacrs.validation.layers.candidates import Candidate, candidates_from
from wtacrs.validation.layers.captures import LayerCapture
from wtacrs.validation.layers.compare import (
    ComparisonConfig,
    ZeroProduct,
    compare,
    compare_layer,
    exact_product,
    median_macs,
)
from wtacrs.validation.layers.scores import SCORE_KINDS, layer_scores
from wtacrs.validation.problems import make_problem
from wtacrs.validation.runner import Runner, generator_for
from wtacrs.validation.statistics.monte_carlo import monte_carlo
from wtacrs.validation.summaries.compare import layer_medians

ESTIMATORS = ("exact", "topk(budget=0.3)", "crs(budget=0.3)", "wta_crs(budget=0.3)")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def capture(seed: int = 0, dtype: torch.dtype = torch.float32) -> LayerCapture:
    x, dy = make_problem("heavy_tailed", 30, 6, 5, generator=seeded(seed), dtype=dtype)
    mask = torch.arange(30) % 5 != 0
    return LayerCapture(x, torch.where(mask.unsqueeze(1), dy, 0.0), mask)


def gaussian(dtype: torch.dtype = torch.float64) -> LayerCapture:
    x, dy = make_problem("gaussian", 30, 6, 5, generator=seeded(0), dtype=dtype)
    return LayerCapture(x, dy, torch.ones(30, dtype=torch.bool))


def plan(scores=SCORE_KINDS, **options) -> ComparisonConfig:
    return ComparisonConfig(tuple(scores), **options)


def table(rows):
    return {(r.layer, r.estimator, r.scores): r for r in rows}


def test_closed_forms_relative_to_the_exact_product():
    layer = gaussian()
    x, dy = layer.x, layer.dy
    rows = table(compare_layer("layer", layer, ESTIMATORS, plan(steps=7)))
    unit = float((dy.T @ x).square().sum())
    for name in ESTIMATORS[1:]:
        estimator = make(name)
        for kind, scores in (("oracle", joint_norms(x, dy)), ("row-norms", row_norms(x))):
            row = rows["layer", repr(estimator), kind]
            bias = estimator.expectation(x, dy, scores=scores) - dy.T @ x
            assert row.variance == pytest.approx(float(estimator.variance(x, dy, scores=scores)) / unit, rel=1e-12)
            assert row.bias_squared == pytest.approx(float(bias.square().sum()) / unit, rel=1e-9, abs=1e-25)
            assert row.mse == pytest.approx(row.bias_squared + row.variance)
            assert row.mse_of_mean == pytest.approx(row.bias_squared + row.variance / 7)
            assert (row.requested, row.bytes_share, row.steps) == (row.estimator, None, 7)
            assert (row.method, row.draws, row.variance_error) == ("closed form", None, None)
            assert (row.n, row.d, row.m, row.budget) == (30, 6, 5, 0.3)


def test_bytes_are_those_of_what_is_saved():
    rows = table(compare_layer("layer", gaussian(torch.bfloat16), ESTIMATORS, plan(("row-norms",))))
    assert {row.exact_bytes for row in rows.values()} == {30 * 6 * 2}
    assert rows["layer", "exact", "row-norms"].saved_bytes == 30 * 6 * 2
    # 9 rows of 6 bf16 numbers, an index of 4 and a weight of 4 bytes each
    assert rows["layer", "crs(budget=0.3)", "row-norms"].saved_bytes == 9 * (6 * 2 + 8)


def test_macs_are_those_that_are_stated():
    estimators = [*ESTIMATORS, Silent(budget=9)]
    rows = table(compare_layer("layer", gaussian(), estimators, plan(("row-norms",))))
    assert {row.exact_macs for row in rows.values()} == {30 * 6 * 5}
    assert rows["layer", "exact", "row-norms"].relative_macs == 1.0
    assert rows["layer", "crs(budget=0.3)", "row-norms"].macs == 9 * 6 * 5
    silent = rows["layer", "silent(budget=9)", "row-norms"]
    assert (silent.macs, silent.relative_macs) == (None, None)


def test_the_median_of_macs_leaves_out_what_is_not_stated():
    estimators = ["exact", "crs(budget=15)", "crs(budget=3)", Silent(budget=9)]
    rows = compare_layer("layer", gaussian(), estimators, plan(("oracle",)))
    assert median_macs(rows) == 0.5
    assert median_macs(rows[3:]) is None


def test_the_budget_of_a_composite_is_that_of_what_it_wraps():
    """So that its budgets stay apart in the tables and figures."""
    specs = [f"control_variate(rank=1, rows=quantized_rows(rows=crs(budget={k})))" for k in (3, 0.5)]
    rows = compare_layer("layer", gaussian(), [*specs, "fp8"], plan(("oracle",)))
    assert [row.budget for row in rows] == [3, 0.5, None]
    medians = layer_medians(rows)
    assert [(entry.budget, entry.row_fraction) for entry in medians] == [(3, 0.1), (0.5, 0.5), (None, None)]


def test_padding_is_never_sampled():
    """Masked rows change nothing, whatever they hold, as long as their dy is zero."""
    layer = capture()
    spoilt = torch.where(layer.mask.unsqueeze(1), layer.x, 1e4)
    names = ESTIMATORS[1:]
    clean = compare_layer("layer", layer, names, plan())
    other = compare_layer("layer", LayerCapture(spoilt, layer.dy, layer.mask), names, plan())
    everything = torch.ones_like(layer.mask)
    unmasked = compare_layer("layer", LayerCapture(spoilt, layer.dy, everything), names, plan())
    for a, b in zip(clean, other, strict=True):
        assert a.variance == pytest.approx(b.variance, rel=1e-9)
        assert a.bias_squared == pytest.approx(b.bias_squared, rel=1e-6, abs=1e-9)
    for a, b in zip(clean, unmasked, strict=True):
        if a.scores == "row-norms" and a.estimator != "topk(budget=0.3)":
            assert b.variance > 2 * a.variance


def test_estimators_without_scores_or_budget_appear_once():
    candidates = candidates_from(["exact", "topk", "crs", "wta_crs(budget=0.3)"], (0.1, 5))
    rows = compare({"a": capture()}, candidates)
    assert [r.estimator for r in rows if r.estimator == "exact"] == ["exact"]
    assert len(rows) == 1 + 2 * 2 * 2 + 2
    assert {r.budget for r in rows} == {None, 0.1, 5, 0.3}
    assert candidates_from(["crs", "crs"], [3]) == [Candidate(CRS(budget=3))]


def test_at_a_share_of_the_bytes_every_estimator_has_the_largest_size_that_fits():
    x, dy = make_problem("gaussian", 80, 16, 5, generator=seeded(0), dtype=torch.float32)
    layer = LayerCapture(x, dy, torch.arange(80) % 4 != 0)
    candidates = candidates_from(["crs", "recommended", "fp8", "exact"], (), (0.5,))
    rows = compare_layer("layer", layer, candidates, plan(("oracle",)))
    assert [row.requested for row in rows] == ["crs", "recommended"]  # fp8 and exact do not fit
    for row in rows:
        assert (row.n, row.bytes_share, row.exact_bytes) == (60, 0.5, 60 * 16 * 2)  # bf16, without padding
        assert row.saved_bytes <= 0.5 * row.exact_bytes
    assert rows[0].budget == 0.5 * 60 * 32 // (32 + 8)
    with pytest.raises(InputError, match="made for a share of the bytes"):
        candidates_from(["recommended"], (0.1,))
    with pytest.raises(InputError, match=r"bytes=1.5 must be a share"):
        candidates_from(["crs"], (), (1.5,))


def test_the_cosine_is_that_of_many_estimates():
    """A ratio of moments; where nothing is drawn, the cosine itself."""
    layer = capture()
    rows = compare_layer("layer", layer, ["exact", "topk(budget=10)", "crs(budget=20)"], plan(("oracle",)))
    exact, topk, crs = rows
    assert exact.cosine == pytest.approx(1.0)
    product, kept = layer.dy.T @ layer.x, make("topk(budget=10)")
    scores = layer_scores("oracle", layer.x, layer.dy, layer.mask)
    biased = kept.contract(kept.compress(layer.x, scores=scores), layer.dy)
    assert topk.cosine == pytest.approx(float(torch.cosine_similarity(biased.flatten(), product.flatten(), 0)))
    assert crs.cosine == pytest.approx((1 + crs.variance) ** -0.5)


class Silent(CRS):
    """CRS that does not state its MACs."""

    name = "silent"

    def macs(self, n, d, m):
        return Estimator.macs(self, n, d, m)


class Formless(CRS):
    """CRS that does not know its moments."""

    name = "formless"

    def variance(self, x, dy, *, scores=None):
        raise NoClosedForm("unknown")


def test_monte_carlo_where_there_is_no_closed_form():
    known = compare_layer("layer", gaussian(), [CRS(budget=8)], plan())
    measured = compare_layer("layer", gaussian(), [Formless(budget=8)], plan(draws=800, seed=1))
    reach = float(stats.norm.isf(share("comparison: monte carlo beside closed form", 6) / 2))
    for truth, row in zip(known, measured, strict=True):
        assert (row.method, row.draws) == ("monte carlo", 800)
        assert abs(row.variance - truth.variance) <= reach * row.variance_error
        assert abs(row.bias_squared) <= reach * row.bias_squared_error
        assert abs(row.cosine - truth.cosine) <= reach * row.cosine_error
        assert row.cosine_error < 0.1
        assert row.variance_error < 0.1 * row.variance
        assert row.mse_of_mean == pytest.approx(row.variance / 100)  # what is measured of the bias is noise
        assert row.saved_bytes == truth.saved_bytes


def test_layers_without_a_product_are_skipped_with_a_reason():
    empty = capture()
    empty = LayerCapture(empty.x, torch.zeros_like(empty.dy), empty.mask)
    captures = {"first": capture(), "idle": empty, "last": capture(1)}
    seen, reasons = [], []
    runner = Runner(report=lambda *done: seen.append(done), skipped=lambda *reason: reasons.append(reason))
    rows = compare(captures, ESTIMATORS[2:3], runner=runner)
    assert {row.layer for row in rows} == {"first", "last"}
    assert seen == [("first", 1, 3), ("idle", 2, 3), ("last", 3, 3)]
    assert [name for name, _ in reasons] == ["idle"]
    assert "exact product is zero" in reasons[0][1]
    with pytest.warns(UserWarning, match="'idle': the exact product is zero"):
        compare(captures, ["exact"])
    with pytest.raises(ZeroProduct):
        compare_layer("idle", empty, ["exact"], plan())


def test_layers_are_chosen_by_name_and_read_one_at_a_time():
    loaded = []

    class Lazy(dict):
        def __getitem__(self, name):
            loaded.append(name)
            return super().__getitem__(name)

    captures = Lazy(a=capture(), b=capture(1), c=capture(2))
    rows = compare(captures, ["exact"], layers=["c", "a"])
    assert [row.layer for row in rows] == ["c", "a"]
    assert "b" not in loaded
    with pytest.raises(InputError, match="layer 'd' is not among the captured layers: a, b, c"):
        compare(captures, ["exact"], layers=["d"])


def test_a_row_depends_on_the_seed_and_on_no_other_row():
    spec = "systematic(budget=8)"
    first, again, other = (
        compare_layer("layer", gaussian(), names, plan(("oracle",), draws=20, seed=seed))
        for names, seed in (([spec], 1), (["crs(budget=3)", spec], 1), ([spec], 2))
    )
    assert first == again[1:]
    assert first != other


def test_random_streams_are_those_of_older_results():
    """In whose names the kind is spelled with a space."""
    layer, spec = gaussian(), "systematic(budget=8)"
    name = repr(make(spec))
    (row,) = compare_layer("layer", layer, [spec], plan(("row-norms",), draws=9, seed=2))
    stream = generator_for(2, f"layer {name} row norms None")
    found = monte_carlo(make(spec), layer.x, layer.dy, draws=9, scores=row_norms(layer.x), generator=stream)
    assert row.variance == found.variance / float((layer.dy.T @ layer.x).square().sum())


def test_misuse_names_the_argument(unchecked):
    x, dy = make_problem("gaussian", 10, 3, 2, generator=seeded(0))
    with pytest.raises(InputError, match="scores='norms'"):
        layer_scores("norms", x, dy)
    with pytest.raises(InputError, match="mask must be bool"):
        layer_scores("oracle", x, dy, torch.ones(9, dtype=torch.bool))
    with pytest.raises(InputError, match="mask must be bool"):
        layer_scores("oracle", x, dy, torch.ones(10))
    with pytest.raises(InputError, match="at least one kind"):
        plan(())
    with pytest.raises(InputError, match="NaN or infinite"):
        exact_product("layer", x / 0.0, dy)
    with pytest.raises(InputError, match="same number of rows"):
        compare_layer("layer", LayerCapture(x, dy[:-1], torch.ones(10) > 0), ["exact"], plan())
    with pytest.raises(InputError, match="unknown estimator"):
        compare({"a": capture()}, ["nonsense"])
    with pytest.raises(InputError, match="draws=2 must be an integer ≥ 3"):
        plan(draws=2)
