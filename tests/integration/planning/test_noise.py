"""Noise of a block beside the closed forms of its layers, summed by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.captures import capture
from support.language_models import language_model
from torch import nn

from wtacrs.estimators import InputError, make, row_norms
from wtacrs.integration.planning import noise as module
from wtacrs.integration.planning.noise import captured_noise, independent_rows_noise, noise_of_captures
from wtacrs.validation.layers.captures import LayerCapture, load_captures, write_captures
from wtacrs.validation.records.plan import STOCK, Choice

SPECS = [repr(make(f"crs(budget={budget})")) for budget in (0.5, 0.25)]
LAYERS = ("a.0.up", "a.0.down", "a.1.up", "head")


def by_hand(entries: dict[str, LayerCapture], layer: str, spec: str) -> float:
    """The mean over batches of the variance of one layer, by the estimator's own closed form."""
    found = []
    for batch in range(3):
        c = entries[f"{layer}#{batch}"]
        scores = torch.where(c.mask, row_norms(c.x), 0.0)
        found.append(float(make(spec).variance(c.x, c.dy, scores=scores)))
    return sum(found) / 3


@pytest.fixture
def entries() -> dict[str, LayerCapture]:
    """Three batches, whose padding carries no gradient."""
    found = {}
    for place, layer in enumerate(LAYERS):
        for batch in range(3):
            made = capture(10 * place + batch, 16, 5, 4)
            found[f"{layer}#{batch}"] = replace(made, dy=made.dy * made.mask[:, None])
    return found


def test_by_hand(entries: dict[str, LayerCapture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_ELEMENTS", 0)
    path = write_captures(tmp_path / "c.safetensors", entries, {})
    noise = noise_of_captures(load_captures(path), ["a.0", "a.1"], SPECS)
    unit = 0.0
    for layer in LAYERS:
        calls = [entries[f"{layer}#{batch}"] for batch in range(3)]
        gradients = [call.dy.double().T @ call.x.double() for call in calls]
        mean = sum(gradients) / 3
        unit += sum(float((g - mean).square().sum()) for g in gradients) / 2
    for spec in SPECS:
        wanted = (by_hand(entries, "a.0.up", spec) + by_hand(entries, "a.0.down", spec)) / unit
        assert noise("a.0", Choice(estimator=spec)) == pytest.approx(wanted, rel=1e-6)
        assert noise("a.1", Choice(estimator=spec)) == pytest.approx(
            by_hand(entries, "a.1.up", spec) / unit, rel=1e-6
        )
    assert noise("a.0", STOCK) == 0.0


def test_inputs_too_small_to_be_sampled_have_none(entries: dict[str, LayerCapture], tmp_path: Path) -> None:
    path = write_captures(tmp_path / "c.safetensors", entries, {})
    noise = noise_of_captures(load_captures(path), ["a.0", "a.1"], SPECS)
    assert noise("a.0", Choice(estimator=SPECS[0])) == 0.0


def test_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convex in the budget, and the model stays in its mode."""
    monkeypatch.setattr(module, "MIN_ELEMENTS", 0)
    model = language_model("BERT", 0.1).eval()
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(3):
        ids = torch.randint(4, 80, (4, 8), generator=generator)
        batches.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids})
    specs = [repr(make(f"wta_crs(budget={budget})")) for budget in (0.25, 0.5, 0.75)]
    noise = captured_noise(model, batches, specs)
    few, half, many = (noise("bert.encoder.layer.0", Choice(estimator=spec)) for spec in specs)
    assert few > half > many > 0.0
    assert few - half > half - many
    assert not model.training
    with pytest.raises(InputError, match="at least two"):
        captured_noise(model, batches[:1], specs)


def test_independent_rows() -> None:
    """n/k − 1 by the share of the numbers that train."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4, bias=False)

    noise = independent_rows_noise(nn.Sequential(Block(), Block()))
    assert noise("0", Choice(estimator="crs(budget=0.25)")) == pytest.approx(3 / 2)
    assert noise("1", Choice(estimator="crs(budget=0.5)")) == pytest.approx(1 / 2)
    assert noise("1", Choice(checkpointed=True)) == 0.0
    with pytest.raises(InputError, match="keeps no rows"):
        noise("1", Choice(estimator="low_rank(rank=2)"))
