"""Measures of a model: they are those of its layers, put together."""

from __future__ import annotations

from statistics import fmean, median

import pytest
import torch

from wtacrs.estimators import InputError, make
from wtacrs.validation.layers.captures import LayerCapture
from wtacrs.validation.layers.compressibility import compressibility
from wtacrs.validation.layers.growth import model_measures

SPECS = ("crs(budget=0.25)", "wta_crs(budget=0.25)")


def captured(layers: int = 3, batches: int = 4, n: int = 24) -> dict[str, LayerCapture]:
    generator = torch.Generator().manual_seed(5)

    def one(layer: int) -> LayerCapture:
        x = torch.randn(n, 4 + layer, generator=generator) * torch.rand(n, 1, generator=generator)
        return LayerCapture(x, torch.randn(n, 3, generator=generator), torch.ones(n, dtype=torch.bool))

    return {f"layer{i}#{b}": one(i) for i in range(layers) for b in range(batches)}


def test_sums_over_layers_and_medians() -> None:
    captures = captured()
    found = model_measures(captures, SPECS)
    products = {e: c.dy.double().T @ c.x.double() for e, c in captures.items()}
    between, size, variance = 0.0, 0.0, 0.0
    for i in range(3):
        mine = torch.stack([products[f"layer{i}#{b}"] for b in range(4)])
        between += float((mine - mine.mean(0)).square().sum()) / 3
        size += float(mine.square().sum()) / 4
        estimator = make("crs(budget=0.25)")
        calls = [captures[f"layer{i}#{b}"] for b in range(4)]
        variance += fmean(
            estimator.variance(c.x.double(), c.dy.double(), scores=(c.x.norm(dim=1) * c.dy.norm(dim=1)).double())
            for c in calls
        )
    assert found.minibatch == pytest.approx(between / size)
    assert found.noise[0].relative == pytest.approx(variance / size, rel=1e-4)
    assert found.noise[0].ratio == pytest.approx(variance / between, rel=1e-4)
    assert [one.estimator for one in found.noise] == list(SPECS)
    by_layer = [
        fmean(
            compressibility(captures[f"layer{i}#{b}"].x, captures[f"layer{i}#{b}"].dy).effective for b in range(4)
        )
        for i in range(3)
    ]
    assert found.effective == pytest.approx(median(by_layer), rel=1e-4)
    assert found.rows == 24


def test_what_does_not_differ_is_left_out_or_refused() -> None:
    captures = captured(layers=1)
    same = {f"same#{b}": captures["layer0#0"] for b in range(4)}
    assert model_measures(captures | same, SPECS) == model_measures(captures, SPECS)
    with pytest.raises(InputError, match="no layer"):
        model_measures(same, SPECS)
