"""Combinations at equal bytes: as many rows as fit and no more, and a table that ranks what is known to rank."""

from __future__ import annotations

import pytest
import torch

from wtacrs.estimators import make, saved_bytes
from wtacrs.validation.captures import LayerCapture
from wtacrs.validation.combinations import COMBINATIONS, largest_within, main, standings


@pytest.mark.parametrize("spec", COMBINATIONS)
def test_the_most_that_fits(spec: str, generator: torch.Generator) -> None:
    x = torch.randn(120, 64, generator=generator).to(torch.bfloat16)
    allowed = 0.3 * x.numel() * 2
    found = largest_within(spec, x, 0.3)
    assert found is not None
    assert saved_bytes(found.compress(x)) <= allowed
    k = next(k for k in range(1, 961) if make(spec.format(k=k)) == found)
    if k < 120:
        assert saved_bytes(make(spec.format(k=k + 1)).compress(x)) > allowed
    assert largest_within(spec, x, 0.001) is None


@pytest.mark.usefixtures("unchecked")
def test_bits_by_the_row_beat_whole_rows(generator: torch.Generator) -> None:
    x, dy = torch.randn(200, 64, generator=generator) + 1, torch.randn(200, 8, generator=generator)
    layers = {"layer": LayerCapture(x, dy, torch.ones(200, dtype=torch.bool))}
    table = standings(
        layers, [0.2], combinations=(COMBINATIONS[0], COMBINATIONS[9]), draws=40, generator=generator
    )
    assert {row.combination for row in table} == {COMBINATIONS[0], COMBINATIONS[9]}
    for kind in ("oracle", "row norms"):
        by_name = {row.combination: row.median for row in table if row.scores == kind}
        assert by_name[COMBINATIONS[9]] < 0.5 * by_name[COMBINATIONS[0]]


def test_a_missing_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere.safetensors"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
