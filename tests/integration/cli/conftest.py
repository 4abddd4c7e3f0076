"""Captured files for the commands that read them, and the places that bad input names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wtacrs.validation.layers.captures import LayerCapture, write_captures
from wtacrs.validation.problems import make_problem

ZERO = LayerCapture(torch.ones(4, 2), torch.zeros(4, 3), torch.ones(4, dtype=torch.bool))


@pytest.fixture(scope="session")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers on one batch, and one that never has a gradient."""
    generator = torch.Generator().manual_seed(0)
    layers = {}
    for name in ("block.0.wi#0", "block.0.wo#0", "block.1.wi#0"):
        problem = make_problem("heavy_tailed", 40, 6, 5, generator=generator, dtype=torch.float32)
        mask = torch.arange(40) < 36
        layers[name] = LayerCapture(problem.x, problem.dy * mask.unsqueeze(1), mask)
    return write_captures(
        tmp_path_factory.mktemp("cli") / "c.safetensors", {**layers, "dead#0": ZERO}, {"model": "m"}
    )


@pytest.fixture(scope="session")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers on three batches, one of them called twice, and one that never has a gradient."""
    generator = torch.Generator().manual_seed(1)
    layers = {}
    for b in range(3):
        for name in (f"wi#{b}", f"wo#{b}", f"wo@1#{b}"):
            problem = make_problem("heavy_tailed", 20, 4, 3, generator=generator, dtype=torch.float32)
            layers[name] = LayerCapture(problem.x, problem.dy, torch.ones(20, dtype=torch.bool))
        layers[f"dead#{b}"] = ZERO
    return write_captures(tmp_path_factory.mktemp("noise") / "b.safetensors", layers, {"model": "m"})


@pytest.fixture
def places(captures: Path, batches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Paths by the names that bad input has for them; the current folder is an empty one but for a text file."""
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("no tensors here")
    return {"captures": captures, "batches": batches, "text": text, "tmp": tmp_path}
