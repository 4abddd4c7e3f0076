"""Scores from gradient norms of an earlier state: what they are, that none makes a row unreachable, what they need."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wtacrs.estimators import InputError, joint_norms, make, row_norms
from wtacrs.estimators.core.scores import STALE_FLOOR
from wtacrs.validation.enumeration.exact_moments import enumerate_moments
from wtacrs.validation.layers.candidates import candidates_from
from wtacrs.validation.layers.captures import LayerCapture, load_captures, write_captures
from wtacrs.validation.layers.compare import ComparisonConfig, compare, compare_layer
from wtacrs.validation.layers.scores import SCORE_KINDS, default_scores, layer_scores
from wtacrs.validation.layers.sweep import sweep_winners
from wtacrs.validation.problems import make_problem

UNBIASED = (
    "crs(budget=3)",
    "wta_crs(budget=3)",
    'wta_crs(budget=3, winners="optimal")',
    'systematic(budget=3, order="rows")',
)


def problem(n: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    return make_problem("gaussian", n, 3, 2, generator=torch.Generator().manual_seed(seed))


def layer(n: int = 40, seed: int = 0) -> LayerCapture:
    x, dy = make_problem(
        "heavy_tailed", n, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float32
    )
    mask = torch.arange(n) % 4 != 0
    dy = torch.where(mask.unsqueeze(1), dy, 0.0)
    return LayerCapture(x, dy, mask, row_norms(dy).float())


@given(st.lists(st.sampled_from([0.0, 1e-30, 0.5, 3.0, 1e20]), min_size=6, max_size=6), st.integers(0, 63))
def test_they_are_a_mixture_over_the_rows_that_are_no_padding(stale: list[float], masked: int) -> None:
    x, dy = problem()
    mask = torch.tensor([not masked >> i & 1 for i in range(6)])
    scores = layer_scores("stale", x, dy, mask, torch.tensor(stale))
    assert (scores[~mask] == 0).all()
    if mask.any():
        assert (scores[mask] > 0).all()
    norms = [float(row.norm()) * s * bool(m) for row, s, m in zip(x, stale, mask, strict=True)]
    if sum(norms):
        rows = int(mask.sum())
        by_hand = [
            (1 - STALE_FLOOR) * w / sum(norms) + STALE_FLOOR / rows if m else 0.0
            for w, m in zip(norms, mask, strict=True)
        ]
        torch.testing.assert_close(scores, torch.tensor(by_hand, dtype=torch.float64), rtol=1e-6, atol=0)
        assert float(scores.sum()) == pytest.approx(1.0)
    else:
        assert torch.equal(scores, layer_scores("row-norms", x, dy, mask))


def test_without_a_mask_every_row_counts() -> None:
    x, dy = problem()
    stale = row_norms(dy).float()
    everywhere = torch.ones(6, dtype=torch.bool)
    assert torch.equal(layer_scores("stale", x, dy, None, stale), layer_scores("stale", x, dy, everywhere, stale))
    fresh = joint_norms(x, dy)
    expected = (1 - STALE_FLOOR) * fresh / fresh.sum() + STALE_FLOOR / 6
    torch.testing.assert_close(layer_scores("stale", x, dy, None, stale), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("spec", UNBIASED)
@pytest.mark.parametrize("stale", [[0.0, 2.0, 0.0, 1.0, 5.0, 0.0], [0.0] * 6, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
def test_estimates_are_unbiased_whatever_was_zero_then(spec: str, stale: list[float]) -> None:
    x, dy = problem()
    mask = torch.tensor([True, True, True, True, True, False])
    dy = torch.where(mask.unsqueeze(1), dy, 0.0)
    scores = layer_scores("stale", x, dy, mask, torch.tensor(stale))
    moments = enumerate_moments(make(spec), x, dy, scores=scores)
    torch.testing.assert_close(moments.mean, dy.T @ x, atol=1e-12, rtol=1e-10)


def test_without_the_floor_they_would_be_biased() -> None:
    """What the floor is for: the plain product makes a row of stale zero unreachable."""
    x, dy = problem()
    stale = torch.tensor([0.0, 2.0, 0.0, 1.0, 5.0, 1.0])
    mean = enumerate_moments(make("crs(budget=3)"), x, dy, scores=row_norms(x) * stale).mean
    assert not torch.allclose(mean, dy.T @ x, atol=1e-3)


def test_where_they_go_in_the_table() -> None:
    found = layer()
    kinds = (*SCORE_KINDS, "stale")
    rows = compare_layer("a", found, ["crs(budget=0.3)"], ComparisonConfig(kinds))
    variance = {row.scores: row.variance for row in rows}
    assert variance["oracle"] < variance["stale"] < variance["row-norms"]
    scores = layer_scores("stale", found.x, found.dy, found.mask, found.stale)
    unit = float((found.dy.double().T @ found.x.double()).square().sum())
    expected = float(make("crs(budget=0.3)").variance(found.x, found.dy, scores=scores)) / unit
    assert variance["stale"] == pytest.approx(expected)
    (sweep,) = sweep_winners("a", found.x, found.dy, [0.3], mask=found.mask, stale=found.stale, scores="stale")
    assert sweep.crs == pytest.approx(expected)


def test_they_join_where_every_chosen_layer_has_them() -> None:
    whole, without = layer(), dataclasses.replace(layer(seed=1), stale=None)
    assert default_scores({"a": whole}) == (*SCORE_KINDS, "stale")
    assert default_scores({"a": whole, "b": without}) == SCORE_KINDS
    assert default_scores({"a": whole, "b": without}, ["a"]) == (*SCORE_KINDS, "stale")
    assert default_scores({}) == SCORE_KINDS
    assert default_scores({"a": SimpleNamespace(x=whole.x, dy=whole.dy, mask=whole.mask)}) == SCORE_KINDS
    captures = {"a": whole, "b": without}
    assert {row.scores for row in compare(captures, ["crs(budget=5)"], layers=["a"])} == {*SCORE_KINDS, "stale"}
    assert {row.scores for row in compare(captures, ["crs(budget=5)"])} == set(SCORE_KINDS)
    equal = compare({"a": layer(400)}, candidates_from(["crs"], (), (0.5,)))
    assert {row.scores for row in equal} == {*SCORE_KINDS, "stale"}


def test_what_is_missing_or_unusable_is_named() -> None:
    found = dataclasses.replace(layer(), stale=None)
    with pytest.raises(InputError, match=r"layer 'wi#0': scores='stale' need .*--after STEPS --age A"):
        compare({"wi#0": found}, ["crs(budget=5)"], scores=["stale"])
    x, dy = problem()
    with pytest.raises(InputError, match="stale must be finite"):
        layer_scores("stale", x, dy, None, -torch.ones(6))
    with pytest.raises(InputError, match="stale must be finite"):
        layer_scores("stale", x, dy, None, torch.full((6,), float("nan")))


@pytest.mark.usefixtures("unchecked")
def test_another_number_of_rows_is_refused() -> None:
    x, dy = problem()
    with pytest.raises(InputError, match=r"layer 'a': stale must have shape \[6\], got \[5\]"):
        layer_scores("stale", x, dy, None, torch.ones(5), layer="a")


def test_a_file_holds_them_where_there_are_any(tmp_path: Path) -> None:
    whole, without = layer(), dataclasses.replace(layer(seed=1), stale=None)
    write_captures(tmp_path / "c.safetensors", {"a#0": whole, "b#0": without}, {})
    found = load_captures(tmp_path / "c.safetensors")
    assert torch.equal(found["a#0"].stale, whole.stale)
    assert found["a#0"].stale.dtype == torch.float32
    assert found["b#0"].stale is None
    assert "stale" not in found["b#0"].names
    assert default_scores(found) == SCORE_KINDS
    assert default_scores(found, ["a#0"]) == (*SCORE_KINDS, "stale")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("stale", [torch.ones(39), torch.ones(40, dtype=torch.float64)])
def test_a_file_is_not_written_with_norms_that_do_not_fit(tmp_path: Path, stale: Tensor) -> None:
    with pytest.raises(InputError, match=r"stale of 'a#0' must be torch\.float32 \[40\]"):
        write_captures(tmp_path / "c.safetensors", {"a#0": dataclasses.replace(layer(), stale=stale)}, {})
    assert not list(tmp_path.iterdir())
