"""Whether the order of estimators on one model holds on another: τ and regret by hand, files made once."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.figure_parts import legend

from wtacrs.estimators import InputError, make, row_norms
from wtacrs.figures import style
from wtacrs.figures.plots import transfer
from wtacrs.integration.studies import transfer as module
from wtacrs.integration.studies.budgets import at_budget
from wtacrs.integration.studies.transfer import DEFAULT_ESTIMATORS, transfer_pairs, transfer_study
from wtacrs.integration.tables.transfer import transfer_table
from wtacrs.validation.layers.captures import LayerCapture, load_captures, write_captures
from wtacrs.validation.layers.compare import ComparisonConfig, compare_layer
from wtacrs.validation.problems import make_problem
from wtacrs.validation.records.results import load_result
from wtacrs.validation.records.transfer import Standing

SPECS = ("uniform", "crs", "wta_crs", "gaussian_sketch")


def write(path: Path, family: str, *, stale: bool = True, seed: int = 0) -> Path:
    layers = {}
    for i in range(3):
        generator = torch.Generator().manual_seed(10 * seed + i)
        x, dy = make_problem(family, 40, 5, 4, generator=generator, dtype=torch.float32)
        layer = LayerCapture(x, dy, torch.ones(40, dtype=torch.bool), row_norms(dy).float())
        layers[f"block.{i}.wi#0"] = layer if stale else dataclasses.replace(layer, stale=None)
    return write_captures(path, layers, {"model": f"a {family} model"})


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / f"{family}.safetensors", family) for family in ("heavy_tailed", "gaussian")]


def standings(file: str, values: list[float]) -> list[Standing]:
    return [
        Standing(file=file, scores="oracle", budget=0.1, estimator=name, layers=3, variance=value)
        for name, value in zip("abcdefgh", values, strict=False)
    ]


def test_tau_and_regret_by_hand() -> None:
    there, back = transfer_pairs(standings("one", [1.0, 2.0, 3.0, 4.0]) + standings("two", [3.0, 2.0, 4.0, 8.0]))
    assert (there.source, there.target, back.source, back.target) == ("one", "two", "two", "one")
    assert there.tau == back.tau == pytest.approx((5 - 1) / 6)  # one of six pairs is turned round
    assert (there.chosen, there.best, there.regret) == ("a", "b", 1.5)
    assert (back.chosen, back.best, back.regret) == ("b", "a", 2.0)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=8, unique=True), st.integers(-10, 10))
def test_a_scale_keeps_the_order_and_its_reverse_turns_it_round(sizes: list[int], power: int) -> None:
    values = [float(size) for size in sizes]
    scaled = [2.0**power * v for v in values]  # exact: rounding could make a tie
    same = transfer_pairs(standings("one", values) + standings("two", scaled))[0]
    assert (same.tau, same.regret) == (pytest.approx(1.0), 1.0)
    turned = transfer_pairs(standings("one", values) + standings("two", [1 / v for v in values]))[0]
    assert turned.tau == pytest.approx(-1.0)
    assert turned.regret == pytest.approx(max(values) / min(values))


def test_ties_and_zeros() -> None:
    tied = transfer_pairs(standings("one", [1.0, 1.0]) + standings("two", [1.0, 2.0]))[0]
    assert tied.tau is None
    free = transfer_pairs(standings("one", [1.0, 2.0]) + standings("two", [5.0, 0.0]))[0]
    assert free.regret == math.inf


def test_a_study_compares_every_file(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = transfer_study(files, SPECS, [0.2, 8], out)
    assert load_result(out / "transfer.json") == result
    assert result.models == {"heavy_tailed": "a heavy_tailed model", "gaussian": "a gaussian model"}
    assert {(p.scores, p.budget) for p in result.pairs} == {
        (kind, budget) for kind in ("oracle", "row-norms", "stale") for budget in (0.2, 8)
    }
    assert len(result.pairs) == 2 * 3 * 2
    groups = {(s.file, s.scores, s.budget): 0 for s in result.standings}
    for s in result.standings:
        groups[s.file, s.scores, s.budget] += 1
    assert set(groups.values()) == {len(SPECS)}  # estimators that ignore scores stand under every kind
    found = load_captures(files[0])
    medians = sorted(
        compare_layer("a", found[e], ["crs(budget=0.2)"], ComparisonConfig(("row-norms",)))[0].variance
        for e in found
    )
    crs = [
        s.variance for s in result.standings
        if (s.file, s.scores, s.budget, s.estimator) == ("heavy_tailed", "row-norms", 0.2, "crs")
    ]  # fmt: skip
    assert crs == [pytest.approx(medians[1])]
    assert transfer_table(result).row_count == len(result.pairs) / 2
    assert (out / "transfer.png").exists()


def test_a_file_is_compared_once(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, calls = tmp_path / "out", []
    honest = module.compare
    monkeypatch.setattr(module, "compare", lambda *a, **k: (calls.append(a[0].path.stem), honest(*a, **k))[1])
    monkeypatch.setattr(module.transfer, "draw", lambda result, path: path)  # drawing is tested below
    first = transfer_study(files, SPECS, [0.2], out)
    assert calls == ["heavy_tailed", "gaussian"]
    assert transfer_study(files, SPECS, [0.2], out) == first
    assert len(calls) == 2
    write(files[1], "gaussian", seed=1)
    assert transfer_study(files, SPECS, [0.2], out) != first
    assert calls[2:] == ["gaussian"]
    transfer_study(files, SPECS, [0.3], out)
    assert calls[3:] == ["heavy_tailed", "gaussian"]
    (out / "comparison-gaussian.json").write_text("{")
    transfer_study(files, SPECS, [0.3], out)
    assert calls[5:] == ["gaussian"]
    transfer_study(files, SPECS, [0.3], out, overwrite=True)
    assert len(calls) == 8


def test_stale_scores_join_where_every_file_has_them(files: list[Path], tmp_path: Path) -> None:
    bare = write(tmp_path / "bare.safetensors", "gaussian", stale=False)
    result = transfer_study([files[0], bare], SPECS, [0.2], tmp_path / "out")
    assert {p.scores for p in result.pairs} == {"oracle", "row-norms"}
    with pytest.raises(InputError, match="scores='stale' need"):
        transfer_study([files[0], bare], SPECS, [0.2], tmp_path / "out", scores=["stale"])


def test_specs_with_a_place_for_the_budget() -> None:
    assert at_budget("crs", 8) == make("crs(budget=8)")
    nested = at_budget('control_variate(base="mean", rows=wta_crs(budget={budget}))', 0.3)
    assert nested == make('control_variate(base="mean", rows=wta_crs(budget=0.3))')
    with pytest.raises(InputError, match="leave the budget out"):
        at_budget("crs(budget=3)", 0.1)
    with pytest.raises(InputError, match="leave the budget out"):
        at_budget("exact", 0.1)
    assert all(at_budget(spec, 0.1).traits.unbiased for spec in DEFAULT_ESTIMATORS)


def test_what_cannot_be_compared(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "sub").mkdir()
    twin = write(tmp_path / "sub" / files[0].name, "gaussian")
    for given_files, specs, told in (
        (files[:1], SPECS, "at least two files"),
        ([files[0], twin], SPECS, "another file is called 'heavy_tailed'"),
        (files, ("crs",), "an order needs at least two"),
        (files, ("crs", "crs"), "an order needs at least two"),
        (files, ("crs", "topk"), "estimator='topk' is biased"),
        ([files[0], tmp_path / "missing.safetensors"], SPECS, "no such file"),
    ):
        with pytest.raises(InputError, match=told):
            transfer_study(given_files, specs, [0.2], out)
    assert not out.exists()


def test_the_figure_shows_every_estimator_on_both(files: list[Path], tmp_path: Path) -> None:
    result = transfer_study(files, SPECS, [0.2, 0.5], tmp_path / "out")
    fig = transfer.build(result)
    assert len(fig.axes) == 6
    at = {(s.file, s.scores, s.budget, s.estimator): s.variance for s in result.standings}
    for axes, (kind, budget) in zip(
        fig.axes, [(k, b) for k in ("row-norms", "stale", "oracle") for b in (0.2, 0.5)], strict=True
    ):
        shown = {(float(x), float(y)) for line in axes.get_lines() for x, y in line.get_xydata()}
        names = {s.estimator for s in result.standings}
        assert shown == {tuple(at[f, kind, budget, n] for f in ("heavy_tailed", "gaussian")) for n in names}
        assert len(axes.texts) == len(SPECS)
        assert "τ = " in axes.get_title(loc="left")
    assert [label.split("  ")[0] for label in legend(fig)[:4]] == ["1", "2", "3", "4"]
    turned = transfer.build(result, files=["gaussian", "heavy_tailed"])
    assert turned.axes[-1].get_xlabel() == "on gaussian"
    for chosen in (["gaussian", "gaussian"], ["gaussian", "nowhere"]):
        with pytest.raises(InputError, match="files: "):
            transfer.build(result, files=chosen)
    nothing = [s.model_copy(update={"variance": 0.0}) for s in result.standings]
    with pytest.raises(style.NothingToDraw, match="positive, finite"):
        transfer.build(result.model_copy(update={"standings": nothing}))
