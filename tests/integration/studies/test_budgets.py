"""Budgets against accuracy: the runs, their difference, variance and bytes, and that a stopped study goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import pytest
from scipy import stats
from support.figure_parts import legend
from support.result_examples import budgets as example
from support.runs import CONFIG, TASK
from support.runs_study import Colours

from wtacrs.estimators import InputError, make
from wtacrs.figures import style
from wtacrs.figures.plots import budgets as budgets_figure
from wtacrs.integration.measure.memory import step_memory
from wtacrs.integration.models.loading import load_model, small_t5, task_tokenizer
from wtacrs.integration.studies.budget_costs import budget_costs, first_batch
from wtacrs.integration.studies.budgets import (
    at_budgets,
    budgets_study,
    difference,
    scores_over_seeds,
    untrained_budgets_study,
)
from wtacrs.integration.tables.budgets import budgets_table
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.training.loop import TrainingLoop
from wtacrs.validation.layers.captures import load_captures
from wtacrs.validation.layers.noise import layer_entries, layer_noise, noise_ratio
from wtacrs.validation.records.budgets import BudgetsResult
from wtacrs.validation.records.results import load_result, write_text
from wtacrs.validation.records.training import TrainingResult
from wtacrs.validation.seeds import LARGEST_SEED
from wtacrs.validation.statistics.variance_cost import variance_cost

SHORT = CONFIG.but(steps=2, eval_every=1, eval_from=1)


@dataclass(frozen=True)
class Wide(Colours):
    """Wide enough for encoder layers to be sampled, and every seed with dev examples of its own."""

    def load(self, seed: int = 0, *, needs_dev: bool = True) -> TaskData:
        if self.held_out is None:
            return TASK
        first = seed % 2 * self.held_out
        return replace(TASK, dev=TASK.train[first : first + self.held_out])

    def open(self, task: TaskData, seed: int):
        tokenizer = task_tokenizer(TASK, 300)
        return small_t5(tokenizer, d_model=128, layers=1, heads=2, d_ff=64, dropout=0.1), tokenizer


def studied(out: Path, budgets: Sequence[float], **options) -> BudgetsResult:
    return budgets_study(
        Wide(held_out=16), SHORT, "wta_crs", budgets, 2, out, **{"captured": 2, "average_last": 2, **options}
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[BudgetsResult, Path]:
    out = tmp_path_factory.mktemp("budgets")
    return studied(out, [0.5, 0.1]), out


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


def test_a_study_holds_its_runs(study: tuple[BudgetsResult, Path]) -> None:
    result, out = study
    assert load_result(out / "budgets.json") == result
    assert [p.budget for p in result.points] == [0.1, 0.5]
    assert (result.estimator, list(result.seeds), result.steps, result.dev_size) == ("wta_crs", [0, 1], 2, 16)
    values = {}
    for name, scores in [("exact", result.exact), *((f"budget-{p.budget}", p.scores) for p in result.points)]:
        runs = [load_result(out / name / f"seed-{seed}" / "result.json") for seed in (0, 1)]
        assert all(isinstance(run, TrainingResult) for run in runs)
        assert [len(run.history) for run in runs] == [2, 2]
        values[name] = [sum(point.dev["accuracy"] for point in run.history) / 2 for run in runs]
        assert list(scores.values) == pytest.approx(values[name])
        assert scores.dev_error is None  # every seed has dev examples of its own
    point = result.points[0]
    assert point.difference == difference(values["budget-0.1"], values["exact"], None)
    weights = sorted(str(found.relative_to(out)) for found in out.rglob("last"))
    assert weights == ["exact/seed-0/last"]  # of the one that is captured
    assert budgets_table(result).row_count == 3
    poor, good = (result.model_copy(update={"majority": m}) for m in (result.exact.mean, -1.0))
    assert "nothing follows" in budgets_table(poor).caption
    assert "nothing follows" not in budgets_table(good).caption


def test_variance_and_noise_are_those_of_the_layers_of_the_exact_model(
    study: tuple[BudgetsResult, Path],
) -> None:
    result, out = study
    captures = load_captures(out / "captures.safetensors")
    entries = layer_entries(captures)
    sampled = [name for name, found in entries.items() if captures[found["0"][0]].x.numel() >= 16_384]
    assert 0 < len(sampled) == result.layers < len(entries)  # answers are short, and the decoder stays exact
    for point in result.points:
        rows = {
            name: layer_noise(name, captures, list(found.values()), [make("wta_crs", budget=point.budget)])
            for name, found in entries.items()
        }
        for place, kind in enumerate(("oracle", "row-norms")):
            mine = [rows[name][place] for name in sampled]
            relative = [v / s for row in mine for v, s in zip(row.variances, row.sizes, strict=True)]
            assert point.variance[kind] == pytest.approx(median(relative))
            errors = [sum(row.variances[b] for row in mine) for b in (0, 1)]
            deviations = [sum(found[0].deviations[b] for found in rows.values()) for b in (0, 1)]
            assert point.ratio(kind).value == pytest.approx(noise_ratio(errors, deviations).value)
    assert all(p.variance["oracle"] <= p.variance["row-norms"] for p in result.points)
    assert [one.scores for one in result.noise_thresholds] == ["oracle", "row-norms"]


def test_bytes_are_those_of_a_step(study: tuple[BudgetsResult, Path]) -> None:
    result, out = study
    model, tokenizer = load_model(str(out / "exact" / "seed-0" / "last"), TASK)
    batch = first_batch(TASK, model, tokenizer, SHORT)
    for memory, spec in ((result.memory, "exact"), (result.points[0].memory, "wta_crs(budget=0.1)")):
        step = step_memory(model, batch, estimator=spec)
        assert (memory.kept, memory.linear) == (step.total, step.ours)
        assert memory.peak == pytest.approx(step.peak, rel=0.02)
    few, half = (point.memory for point in result.points)
    assert few.linear < half.linear < result.memory.linear


def test_what_is_there_is_not_trained_again(
    study: tuple[BudgetsResult, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, out = study
    trained: list[object] = []
    honest = TrainingLoop._step
    monkeypatch.setattr(TrainingLoop, "_step", lambda self, batches: (trained.append(self), honest(self, batches)))
    assert studied(out, [0.1, 0.5]) == result
    assert not trained
    more = studied(out, [0.1, 0.3])
    assert len(trained) == 2 * SHORT.steps
    assert [p.budget for p in more.points] == [0.1, 0.3]
    with pytest.raises(InputError, match="config estimator="):
        budgets_study(Wide(held_out=16), SHORT, "crs", [0.1], 1, out, captured=2, average_last=2)


def test_the_cost_of_variance_is_told_where_something_was_learned(
    study: tuple[BudgetsResult, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, done = study
    assert result.cost is None  # two steps teach nothing
    monkeypatch.setattr("wtacrs.integration.studies.budgets.nothing_learned", lambda *_: False)
    out = shutil.copytree(done, tmp_path / "again")
    found = studied(out, [0.1, 0.5], margin=0.2)
    runs = {p.budget: p.scores.values for p in found.points}
    variances = {p.budget: p.variance["row-norms"] for p in found.points}
    assert found.cost == variance_cost(found.exact.values, runs, variances, margin=0.2)


def test_what_cannot_be_studied(tmp_path: Path) -> None:
    for estimator, budgets, seeds, options, told in (
        ("wta_crs", [0.1], 0, {}, "seeds=0"),
        ("wta_crs", [], 1, {}, "at least one"),
        ("wta_crs", [0.1, 0.1], 1, {}, "budget=0.1 is given twice"),
        ("wta_crs", [1, 1.0], 1, {}, "no axis in common"),
        ("wta_crs(budget=0.3)", [0.1], 1, {}, "leave the budget out"),
        ("wta_csr", [0.1], 1, {}, "did you mean wta_crs"),
        ("wta_crs", [1.5], 1, {}, "budget=1.5 must be"),
        ("wta_crs", [0.1], 1, {"margin": 0.0}, "margin=0.0"),
        ("wta_crs", [0.1], 1, {"average_last": 3}, "a run has 2 evaluations"),
        ("wta_crs", [0.1], 1, {"average_last": 0}, "average_last=0"),
        ("wta_crs", [0.1], 1, {"captured": 1}, "captured=1"),
        ("wta_crs", [0.1], 1, {"captured": 3}, "batches=3 of batch_size=16 need 48"),
    ):
        with pytest.raises(InputError, match=told):
            budgets_study(Wide(), SHORT, estimator, budgets, seeds, tmp_path, **{"captured": 2, **options})
    with pytest.raises(InputError, match=r"seeds=2 from seed=4294967295 on: the last seed=4294967296 must be"):
        budgets_study(Wide(), SHORT.but(seed=LARGEST_SEED), "wta_crs", [0.1], 2, tmp_path)
    with pytest.raises(InputError, match="no layer of this model would be sampled"):
        budgets_study(Colours(), SHORT, "wta_crs", [0.1], 1, tmp_path, captured=2)
    assert not list(tmp_path.iterdir())


def test_without_training_variance_and_bytes_alone_are_measured(tmp_path: Path) -> None:
    config = SHORT.but(batch_size=12)  # two captured batches leave examples for the steps before
    result = untrained_budgets_study(Wide(), config, "wta_crs", [0.1, 0.5], tmp_path, after=1, captured=2)
    assert load_result(tmp_path / "budgets.json") == result
    assert (result.exact, result.cost, list(result.seeds), result.steps) == (None, None, [], 1)
    assert "steps" not in result.stamp.inputs  # those of the runs, of which there are none
    assert sorted(path.name for path in tmp_path.iterdir()) == ["budgets.json", "budgets.png"]
    small, large = result.points
    assert (small.scores, small.difference) == (None, None)
    assert small.variance["row-norms"] > large.variance["row-norms"] > 0
    assert small.memory.kept < large.memory.kept < result.memory.kept
    assert budgets_table(result).row_count == 3
    assert len(budgets_figure.build(result).axes) == 3
    with pytest.raises(InputError, match="none is left to train on"):
        untrained_budgets_study(Wide(), SHORT, "wta_crs", [0.1], tmp_path, after=1, captured=2)


def test_layers_that_stay_exact_by_choice_add_no_noise(tmp_path: Path) -> None:
    model, tokenizer = Wide().open(TASK, 0)
    chosen = at_budgets("wta_crs", [0.1])
    whole, part = (
        budget_costs(
            model,
            tokenizer,
            TASK,
            chosen,
            tmp_path / "c.safetensors",
            SHORT.but(layers=layers),
            batches=2,
            draws=3,
        )
        for layers in (None, ("*.wi",))
    )
    assert 0 < part.layers < whole.layers
    noise = {one.scores: one.ratio.value for one in part.noise[0.1]}
    assert all(noise[one.scores] < one.ratio.value for one in whole.noise[0.1])


def test_a_file_from_before_noise_and_memory_is_read_and_drawn(
    study: tuple[BudgetsResult, Path], tmp_path: Path
) -> None:
    result = study[0]
    old = result.model_dump(mode="json", exclude={"noise_thresholds", "cost", "memory", "average_last", "batches"})
    old["points"] = [{k: v for k, v in p.items() if k not in ("noise", "memory")} for p in old["points"]]
    write_text(tmp_path / "old.json", json.dumps(old))
    found = load_result(tmp_path / "old.json")
    assert isinstance(found, BudgetsResult)
    assert found.points[0].scores == result.points[0].scores
    assert len(budgets_figure.build(found).axes) == 2
    assert budgets_table(found).row_count == 3


def test_the_figure_shows_differences_variances_and_bytes(study: tuple[BudgetsResult, Path]) -> None:
    result = study[0]
    fig = budgets_figure.build(result)
    gap, variance, noise, memory = fig.axes
    drawn = [list(line.get_ydata()) for line in gap.get_lines()]
    assert [100 * p.difference.value for p in result.points] in drawn
    assert [list(line.get_ydata()) for line in variance.get_lines()] == [
        [p.variance[kind] for p in result.points] for kind in ("oracle", "row-norms")
    ]
    ratios = [list(line.get_ydata()) for line in noise.get_lines()]
    assert [p.ratio("row-norms").value for p in result.points] in ratios
    assert [1.0, 1.0] in ratios
    shares = [list(line.get_ydata()) for line in memory.get_lines()]
    assert [p.memory.kept / result.memory.kept for p in result.points] in shares
    assert "95 % interval" in legend(fig)
    with pytest.raises(style.NothingToDraw, match="no budget"):
        budgets_figure.build(result.model_copy(update={"points": []}))


def test_the_figure_marks_the_threshold() -> None:
    fig = budgets_figure.build(example())
    assert {"margin", "variance costs the margin, with interval"} <= set(legend(fig))
