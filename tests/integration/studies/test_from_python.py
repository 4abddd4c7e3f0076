"""Studies from Python: files by name, plain lists, nothing written without a folder, mistakes named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wtacrs.estimators import CRS, InputError
from wtacrs.integration import comparison_study, layer_test_study, noise_study, sweep_study
from wtacrs.validation import Candidate, LayerCapture, load_captures, write_captures


@pytest.fixture
def captured(tmp_path: Path, generator: torch.Generator) -> Path:
    def layer() -> LayerCapture:
        x, dy = torch.randn(30, 5, generator=generator), torch.randn(30, 4, generator=generator)
        return LayerCapture(x, dy, torch.ones(30, dtype=torch.bool))

    return write_captures(tmp_path / "c.safetensors", {f"wi#{batch}": layer() for batch in range(2)}, {})


def test_a_name_does_for_the_file_and_nothing_is_written(captured: Path) -> None:
    compared = comparison_study(str(captured), ["crs", CRS(budget=4)], budgets=(0.3,))
    assert [row.budget for row in compared.rows if row.scores == "oracle"] == [0.3, 4] * 2
    assert noise_study(str(captured), ["crs"], budgets=(0.3,), min_elements=0).models
    assert len(sweep_study(str(captured), budgets=(0.3,)).sweeps) == 2
    assert len(layer_test_study(captured, ["crs"], draws=20).tests) == 2
    assert list(captured.parent.iterdir()) == [captured]


def test_candidates_have_their_sizes(captured: Path) -> None:
    captures = load_captures(captured)
    assert {row.estimator for row in comparison_study(captures, [Candidate("crs(budget=3)")]).rows} == {
        "crs(budget=3)"
    }
    with pytest.raises(InputError, match="have their sizes"):
        comparison_study(captures, [Candidate("crs(budget=3)")], budgets=(0.3,))
    with pytest.raises(InputError, match="candidates='crs' must be a list"):
        comparison_study(captures, "crs")


def test_captures_say_what_they_hold(captured: Path) -> None:
    captures = load_captures(captured)
    assert repr(captures).endswith("c.safetensors', 2 entries of 1 layers)")
    assert repr(captures["wi#0"]) == "StoredCapture(x [30, 5], dy [30, 4], float32, 30 of 30 rows real)"
