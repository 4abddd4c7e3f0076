"""A layer of full size: blocks of rows give what the whole matrix gives, and what is measured is told."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wtacrs.estimators import InputError, make, row_norms
from wtacrs.estimators.core import products as products_module
from wtacrs.estimators.core import scores as scores_module
from wtacrs.estimators.core.errors import NoClosedForm
from wtacrs.estimators.core.products import block_rows, double_product
from wtacrs.validation.benchmarks.scale import LAYER, candidate_from, full_layer, main, scale
from wtacrs.validation.layers.compare import ComparisonConfig, compare_layer
from wtacrs.validation.records.scale import ScaleResult

ESTIMATORS = (
    "exact",
    "topk(budget=0.3)",
    "crs(budget=0.3)",
    "wta_crs(budget=0.3)",
    "uniform(budget=0.3)",
    "rademacher_sketch(budget=0.3)",
    "random_projection(rank=4)",
    "prac(rank=4)",
    "low_rank(rank=4)",
    "velora(groups=2)",
    "stochastic_rounding(bits=4)",
    "fp8",
)


@given(n=st.integers(0, 40), block=st.integers(1, 12), weighted=st.booleans(), seed=st.integers(0, 99))
def test_a_product_in_blocks_is_the_product(n: int, block: int, weighted: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, dy = torch.randn(n, 5, generator=generator).bfloat16(), torch.randn(n, 3, generator=generator).bfloat16()
    weights = torch.rand(n, generator=generator, dtype=torch.float64) if weighted else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products_module, "block_rows", lambda *widths: block)
        found = double_product(x, dy, weights)
    left = dy.double() if weights is None else dy.double() * weights[:, None]
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, left.T @ x.double(), rtol=1e-12, atol=1e-12)


def test_blocks_take_what_is_stated() -> None:
    assert block_rows(4096, 4096) * 8 * (4096 + 4096) == 256 * 2**20
    assert block_rows(10**9) == 128


@pytest.mark.parametrize("spec", ESTIMATORS)
def test_moments_do_not_depend_on_the_blocks(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, plan = full_layer(200, 12, 7, seed=1), ComparisonConfig(("oracle",))
    (whole,) = compare_layer(LAYER, layer, [spec], plan)
    monkeypatch.setattr(products_module, "_BLOCK_BYTES", 0)  # the least: 128 rows
    (blocks,) = compare_layer(LAYER, layer, [spec], plan)
    assert blocks.method == "closed form"
    assert blocks.variance == pytest.approx(whole.variance, rel=1e-10, abs=1e-25)
    assert blocks.bias_squared == pytest.approx(whole.bias_squared, rel=1e-10, abs=1e-25)


def test_norms_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = full_layer(100, 12, 7, seed=2).x
    whole = row_norms(x)
    monkeypatch.setattr(scores_module, "_BLOCK_NUMBERS", 40)
    assert torch.equal(row_norms(x), whole)
    torch.testing.assert_close(whole, x.double().norm(dim=1), rtol=1e-6, atol=0.0)


def test_a_covariance_that_would_not_fit_is_left_to_monte_carlo() -> None:
    x, dy = torch.ones(20_000, 1), torch.ones(20_000, 1)
    with pytest.raises(NoClosedForm, match="20000 rows need a covariance of n² numbers"):
        make('pivotal(budget=0.3, order="rows")').variance(x, dy)


def test_every_estimator_is_measured_in_a_process_of_its_own() -> None:
    result = scale(["crs(budget=0.5)", "recommended at 0.5", "systematic(budget=8)"], 64, 16, 8)
    crs, recommended, systematic = result.rows
    assert (crs.method, systematic.method, systematic.draws) == ("closed form", "monte carlo", 3)
    assert recommended.estimator.startswith("dithered_rows")
    for row in result.rows:
        assert (row.n, row.d, row.m) == (64, 16, 8)
        assert row.variance > 0
        assert row.seconds > 0
        assert row.process_bytes > 100 * 2**20
        assert row.device_bytes is None
    assert ScaleResult.model_validate_json(result.model_dump_json()) == result


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rows", "64", "--features", "8", "--outputs", "8", "--estimators", "nonsense"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "unknown estimator 'nonsense'" in error
    with pytest.raises(InputError, match="must be a share"):
        candidate_from("crs at noon")


def test_the_sizes_of_the_rows_vary_over_decades() -> None:
    layer = full_layer(4096, 4, 4, seed=0)
    norms = layer.x.float().norm(dim=1)
    assert float(norms.quantile(0.99) / norms.quantile(0.01)) > 50
    assert json.dumps(layer.mask.tolist()).count("true") == 4096
