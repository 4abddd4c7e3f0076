"""Right, wrong and opposite masks in architectures of transformers: exact means, and no false report of a right mask."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.paths import ROOT

from wtacrs.integration.models.architectures import ARCHITECTURES
from wtacrs.integration.studies.masks import architecture_rows, masks_study
from wtacrs.validation.records.masks import CONDITIONS, SIDES, MaskRow, MasksResult, PaddingSide
from wtacrs.validation.records.results import load_result

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
SPEC = "wta_crs(budget=0.3)"
SOME = ("bert", "albert", "longformer", "gpt2", "bart", "clip")
UNSEEN = ("clip", "whisper", "deberta-v2")
"""Rows of images and of audio are as many as those of text, whose mask is then taken for theirs; DeBERTa reads the rows
at padding but makes embeddings there 0, so that changing them does not show it."""
COMMITTED = ROOT / "figures" / "gallery" / "masks.json"


def rows(name: str, side: PaddingSide, spec: str = SPEC) -> list[MaskRow]:
    return list(architecture_rows(name, side, spec, 0.01, 0).records)


def check(found: list[MaskRow]) -> None:
    for row in found:
        exact = 1e-6 if ARCHITECTURES[row.architecture].single else 1e-9
        assert max(row.bias, row.bias_after) < exact, row
        assert row.kept <= row.masked <= row.layers, row
        if row.condition == "right" and row.share > 1e-9 and row.architecture not in UNSEEN:
            assert row.reads_padding, row  # no false report


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", SOME)
def test_some_architectures_under_every_mask(name: str, side: PaddingSide) -> None:
    found = rows(name, side)
    assert [row.condition for row in found] == list(CONDITIONS)
    assert not any(row.failed for row in found)
    check(found)


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("spec", [SPEC, "control_variate(rank=2, rows=systematic(budget=0.3))"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_under_every_mask(name: str, spec: str, side: PaddingSide) -> None:
    found = rows(name, side, spec)
    assert not found[0].failed
    check([row for row in found if not row.failed])


def test_the_committed_result_has_all_of_them() -> None:
    result = load_result(COMMITTED)
    assert isinstance(result, MasksResult)
    assert result.architectures == list(ARCHITECTURES)
    assert len(ARCHITECTURES) >= 24
    assert len(result.rows) == len(ARCHITECTURES) * len(CONDITIONS) * len(SIDES)
    check(result.ran)
    assert {row.failed for row in result.rows} == {"", "its loss is nan"}
    assert min(row.score_zero for row in result.ran) < 0.01


def test_a_study_goes_on_and_says_the_same(tmp_path: Path) -> None:
    first = masks_study(tmp_path / "a", architectures=["esm"])
    assert masks_study(tmp_path / "b", architectures=["e?m"]).rows == first.rows
    assert load_result(tmp_path / "a" / "masks.json") == first
    assert (tmp_path / "a" / "masks.png").exists()
