"""Budgets against accuracy: the runs, what is told of their difference, and that a stopped study goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats
from support.figure_parts import legend
from support.runs import CONFIG
from support.runs_study import Colours

from wtacrs.estimators import InputError, make
from wtacrs.figures import style
from wtacrs.figures.plots import budgets as budgets_figure
from wtacrs.integration.studies.budgets import budgets_study, difference, scores_over_seeds
from wtacrs.integration.tables.budgets import budgets_table
from wtacrs.integration.training.loop import TrainingLoop
from wtacrs.validation.layers.captures import load_captures
from wtacrs.validation.layers.compare import compare
from wtacrs.validation.records.budgets import BudgetsResult
from wtacrs.validation.records.results import load_result
from wtacrs.validation.records.training import TrainingResult
from wtacrs.validation.seeds import LARGEST_SEED
from wtacrs.validation.summaries.compare import layer_medians

SHORT = CONFIG.but(steps=2, eval_every=2)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[BudgetsResult, Path]:
    out = tmp_path_factory.mktemp("budgets")
    return budgets_study(Colours(), SHORT, "wta_crs", [0.5, 0.1], 2, out), out


def test_difference_by_hand() -> None:
    found = difference([0.7, 0.8], [0.8, 0.85], 100)
    seeds = float(stats.t.ppf(0.975, 1)) * 0.025  # differences −0.1 and −0.05
    dev = float(stats.norm.ppf(0.975)) * ((0.75 * 0.25 + 0.825 * 0.175) / 100) ** 0.5
    assert found.value == pytest.approx(-0.075)
    assert found.high - found.value == pytest.approx((seeds**2 + dev**2) ** 0.5)
    assert found.value - found.low == pytest.approx(found.high - found.value)
    assert found.within_noise


def test_what_is_told_of_a_difference() -> None:
    assert difference([0.5, 0.51, 0.49], [0.9, 0.91, 0.89], 1000).within_noise is False
    assert difference([0.9], [0.9], 1000).within_noise is True
    assert difference([0.5], [0.9], 1000).within_noise is False
    unknown = difference([0.5], [0.9], None)
    assert (unknown.low, unknown.high, unknown.within_noise) == (None, None, None)
    certain = difference([0.5, 0.6], [0.4, 0.5], None)
    assert certain.low == pytest.approx(certain.high) == pytest.approx(0.1)


def test_standard_errors_by_hand() -> None:
    found = scores_over_seeds([0.6, 0.8], 400)
    assert (found.mean, found.seed_error) == (pytest.approx(0.7), pytest.approx(0.1))
    assert found.dev_error == pytest.approx((0.7 * 0.3 / 400) ** 0.5)
    alone = scores_over_seeds([0.6], None)
    assert (alone.seed_error, alone.dev_error) == (None, None)


def test_a_study_holds_its_runs_and_the_variance_of_the_exact_model(study: tuple[BudgetsResult, Path]) -> None:
    result, out = study
    assert load_result(out / "budgets.json") == result
    assert [p.budget for p in result.points] == [0.1, 0.5]
    assert (result.estimator, list(result.seeds), result.steps) == ("wta_crs", [0, 1], 2)
    for name, scores in [("exact", result.exact), *((f"budget-{p.budget}", p.scores) for p in result.points)]:
        runs = [load_result(out / name / f"seed-{seed}" / "result.json") for seed in (0, 1)]
        assert all(isinstance(run, TrainingResult) for run in runs)
        assert list(scores.values) == [run.final for run in runs]
    captures = load_captures(out / "captures.safetensors")
    estimators = [make("wta_crs", budget=budget) for budget in (0.1, 0.5)]
    medians = {(m.budget, m.scores): m.variance for m in layer_medians(compare(captures, estimators))}
    assert {(p.budget, kind): v for p in result.points for kind, v in p.variance.items()} == medians
    assert all(p.variance["oracle"] <= p.variance["row-norms"] for p in result.points)
    assert budgets_table(result).row_count == 3
    poor, good = (result.model_copy(update={"majority": m}) for m in (result.exact.mean, -1.0))
    assert "nothing follows" in budgets_table(poor).caption
    assert "nothing follows" not in budgets_table(good).caption


def test_what_is_there_is_not_trained_again(
    study: tuple[BudgetsResult, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, out = study
    trained: list[object] = []
    honest = TrainingLoop._step
    monkeypatch.setattr(TrainingLoop, "_step", lambda self, batches: (trained.append(self), honest(self, batches)))
    assert budgets_study(Colours(), SHORT, "wta_crs", [0.1, 0.5], 2, out) == result
    assert not trained
    more = budgets_study(Colours(), SHORT, "wta_crs", [0.1, 0.3], 2, out)
    assert len(trained) == 2 * SHORT.steps
    assert [p.budget for p in more.points] == [0.1, 0.3]
    with pytest.raises(InputError, match="config estimator="):
        budgets_study(Colours(), SHORT, "crs", [0.1], 1, out)


def test_what_cannot_be_studied(tmp_path: Path) -> None:
    for estimator, budgets, seeds, told in (
        ("wta_crs", [0.1], 0, "seeds=0"),
        ("wta_crs", [], 1, "at least one"),
        ("wta_crs", [0.1, 0.1], 1, "budget=0.1 is given twice"),
        ("wta_crs(budget=0.3)", [0.1], 1, "leave the budget out"),
        ("wta_csr", [0.1], 1, "did you mean wta_crs"),
        ("wta_crs", [1.5], 1, "budget=1.5 must be"),
    ):
        with pytest.raises(InputError, match=told):
            budgets_study(Colours(), SHORT, estimator, budgets, seeds, tmp_path)
    with pytest.raises(InputError, match=r"seeds=2 from seed=4294967295 on: the last seed=4294967296 must be"):
        budgets_study(Colours(), SHORT.but(seed=LARGEST_SEED), "wta_crs", [0.1], 2, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_figure_shows_means_and_variances(study: tuple[BudgetsResult, Path]) -> None:
    result = study[0]
    fig = budgets_figure.build(result)
    metric, variance = fig.axes
    assert [p.scores.mean for p in result.points] in [list(line.get_ydata()) for line in metric.get_lines()]
    drawn = [list(line.get_ydata()) for line in variance.get_lines()]
    assert drawn == [[p.variance[kind] for p in result.points] for kind in ("oracle", "row-norms")]
    assert {"exact ± SE, both kinds", "± SE over seeds", "± SE of the dev sample"} <= set(legend(fig))
    single = result.model_copy(
        update={
            "points": [
                p.model_copy(update={"scores": p.scores.model_copy(update={"seed_error": None})})
                for p in result.points
            ]
        }
    )
    assert "± SE over seeds" not in legend(budgets_figure.build(single))
    with pytest.raises(style.NothingToDraw, match="no budget"):
        budgets_figure.build(result.model_copy(update={"points": []}))
